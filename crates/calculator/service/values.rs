//! Texts and numbers by key.

use crate::{
    pb::{
        Amount, AppendRequest, DeleteRequest, Empty, IncrementRequest, Key, SetValueRequest, Text,
        WithdrawRequest, store_server,
    },
    state::{self, Memory, State},
};
use bytes::Bytes;
use prost::Message;
use tonic::{Request, Response, Status};

/// Sets, gets and deletes texts, adds to them, and counts and withdraws where they are numbers.
///
/// A key has at most 1,024 bytes, and a text 65,536: what is longer is `INVALID_ARGUMENT`, which
/// names the field and the limit, and a text that would grow beyond it is `OUT_OF_RANGE`. No error
/// repeats more than 64 characters of either.
#[derive(Clone, Debug, Default)]
pub struct Values<S = Memory> {
    state: S,
}

/// The most bytes that a text may have.
const MAX_TEXT: usize = 65_536;

/// The most bytes of a key.
const MAX_KEY: usize = 1024;

impl<S> Values<S> {
    /// The values in `state`.
    pub const fn new(state: S) -> Self {
        Self { state }
    }
}

impl<S: State> Values<S> {
    /// Changes the value of `key`, and answers with what `change` returns.
    async fn change<T: Message + 'static>(
        &self,
        key: &str,
        change: impl Fn(&mut Option<Bytes>) -> Result<T, Status> + Send + Sync + 'static,
    ) -> Result<Response<T>, Status> {
        let changed = self.state.update(&[&kept(key)?], move |values| change(&mut values[0])).await;
        changed.map(Response::new)
    }
}

#[tonic::async_trait]
impl<S: State> store_server::Store for Values<S> {
    async fn set_value(
        &self,
        request: Request<SetValueRequest>,
    ) -> Result<Response<Empty>, Status> {
        let SetValueRequest { key, value: text, .. } = request.into_inner();
        check("value", &text, MAX_TEXT)?;
        self.change(&key, move |value| {
            *value = Some(text.clone().into());
            Ok(Empty {})
        })
        .await
    }

    async fn get_value(&self, request: Request<Key>) -> Result<Response<Text>, Status> {
        let Key { key } = request.into_inner();
        let value = self.state.read(&kept(&key)?).await?;
        let missing = || Status::not_found(format!("key: {} has no value", state::brief(&key)));
        let text = state::text(&value)?.ok_or_else(missing)?.to_owned();
        Ok(Response::new(Text { text }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<Empty>, Status> {
        let DeleteRequest { key, .. } = request.into_inner();
        self.change(&key, |value| {
            *value = None;
            Ok(Empty {})
        })
        .await
    }

    async fn increment(
        &self,
        request: Request<IncrementRequest>,
    ) -> Result<Response<Amount>, Status> {
        let IncrementRequest { key, by, .. } = request.into_inner();
        let by = if by == 0 { 1 } else { by };
        self.change(&key, move |value| {
            let before: i64 = state::number(value)?;
            let sum = before.checked_add(by);
            let sum =
                sum.ok_or_else(|| Status::out_of_range(format!("{before} + {by} is no int64")))?;
            *value = Some(sum.to_string().into());
            Ok(Amount { value: sum })
        })
        .await
    }

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<Text>, Status> {
        let AppendRequest { key, text, .. } = request.into_inner();
        check("text", &text, MAX_TEXT)?;
        self.change(&key, move |value| {
            let text = state::text(value)?.unwrap_or_default().to_owned() + &text;
            if text.len() > MAX_TEXT {
                let message = format!("text: {} bytes are more than {MAX_TEXT}", text.len());
                return Err(Status::out_of_range(message));
            }
            *value = Some(text.clone().into());
            Ok(Text { text })
        })
        .await
    }

    async fn withdraw(
        &self,
        request: Request<WithdrawRequest>,
    ) -> Result<Response<Amount>, Status> {
        let WithdrawRequest { key, amount, .. } = request.into_inner();
        if amount < 0 {
            return Err(Status::invalid_argument(format!("amount: {amount} is negative")));
        }
        self.change(&key, move |value| {
            let before: i64 = state::number(value)?;
            let left = before.checked_sub(amount).filter(|left| *left >= 0);
            let left = left.ok_or_else(|| {
                Status::failed_precondition(format!("{before} is not enough for {amount}"))
            })?;
            *value = Some(left.to_string().into());
            Ok(Amount { value: left })
        })
        .await
    }

    async fn balance(&self, request: Request<Key>) -> Result<Response<Amount>, Status> {
        let Key { key } = request.into_inner();
        let value = state::number(&self.state.read(&kept(&key)?).await?)?;
        Ok(Response::new(Amount { value }))
    }
}

/// The key of the value of `key` in the store.
fn kept(key: &str) -> Result<String, Status> {
    if key.is_empty() {
        return Err(Status::invalid_argument("key: is empty"));
    }
    check("key", key, MAX_KEY)?;
    Ok(format!("value:{key}"))
}

fn check(field: &str, text: &str, most: usize) -> Result<(), Status> {
    if text.len() > most {
        let message = format!("{field}: {} bytes are more than {most}", text.len());
        return Err(Status::invalid_argument(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{store_server::Store as _, *};
    use tonic::Code;

    fn id() -> String {
        String::new()
    }

    fn key(key: &str) -> Request<Key> {
        Request::new(Key { key: key.into() })
    }

    async fn set(values: &Values, key: &str, value: &str) {
        let (request_id, key, value) = (id(), key.into(), value.into());
        values.set_value(Request::new(SetValueRequest { request_id, key, value })).await.unwrap();
    }

    fn code<T>(outcome: Result<Response<T>, Status>) -> Result<T, Code> {
        outcome.map(Response::into_inner).map_err(|status| status.code())
    }

    async fn withdraw(values: &Values, amount: i64) -> Result<i64, Code> {
        let request = WithdrawRequest { request_id: id(), key: "k".into(), amount };
        code(values.withdraw(Request::new(request)).await).map(|left| left.value)
    }

    async fn increment(values: &Values, by: i64) -> Result<i64, Code> {
        let request = IncrementRequest { request_id: id(), key: "k".into(), by };
        code(values.increment(Request::new(request)).await).map(|sum| sum.value)
    }

    async fn append(values: &Values, text: &str) -> Result<String, Code> {
        let request = AppendRequest { request_id: id(), key: "k".into(), text: text.into() };
        code(values.append(Request::new(request)).await).map(|whole| whole.text)
    }

    #[tokio::test]
    async fn a_value_is_set_and_got_and_deleted() {
        let values = Values::default();
        assert_eq!(code(values.get_value(key("k")).await), Err(Code::NotFound));
        set(&values, "k", "v").await;
        assert_eq!(code(values.get_value(key("k")).await).unwrap().text, "v");
        for _ in 0..2 {
            let request = DeleteRequest { request_id: id(), key: "k".into() };
            values.delete(Request::new(request)).await.unwrap();
            assert_eq!(code(values.get_value(key("k")).await), Err(Code::NotFound));
        }
        assert_eq!(code(values.get_value(key("")).await), Err(Code::InvalidArgument));
    }

    #[tokio::test]
    async fn a_balance_is_never_overdrawn() {
        let values = Values::default();
        set(&values, "k", "100").await;
        assert_eq!(withdraw(&values, 60).await, Ok(40));
        assert_eq!(withdraw(&values, 60).await, Err(Code::FailedPrecondition));
        assert_eq!(withdraw(&values, -1).await, Err(Code::InvalidArgument));
        assert_eq!(code(values.balance(key("k")).await).unwrap().value, 40);
        assert_eq!(code(values.balance(key("none")).await).unwrap().value, 0);
    }

    #[tokio::test]
    async fn a_number_does_not_overflow_and_a_text_is_no_number() {
        let values = Values::default();
        assert_eq!(increment(&values, 0).await, Ok(1));
        assert_eq!(increment(&values, i64::MAX).await, Err(Code::OutOfRange));
        assert_eq!(append(&values, "0").await, Ok("10".into()));
        assert_eq!(increment(&values, 5).await, Ok(15));
        assert_eq!(append(&values, "x").await, Ok("15x".into()));
        assert_eq!(increment(&values, 5).await, Err(Code::FailedPrecondition));
        assert_eq!(append(&values, &"x".repeat(MAX_TEXT)).await, Err(Code::OutOfRange));
    }

    // catalogue: S-E12
    #[tokio::test]
    async fn what_is_too_long_is_refused_by_field_and_limit_and_no_error_repeats_it() {
        let values = Values::default();
        let long = "x".repeat(MAX_TEXT + 1);
        let request = |key: &str, value: &str| {
            let (request_id, key, value) = (id(), key.into(), value.into());
            Request::new(SetValueRequest { request_id, key, value })
        };
        let status = values.set_value(request("k", &long)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "value: 65537 bytes are more than 65536");
        let status = values.set_value(request(&long, "v")).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "key: 65537 bytes are more than 1024");
        assert_eq!(append(&values, &long).await, Err(Code::InvalidArgument));
        for text in ["x", "\"", "\u{1}", "\u{fffd}", "\u{10ffff}"] {
            set(&values, "k", &text.repeat(MAX_TEXT / text.len())).await;
            let request = IncrementRequest { request_id: id(), key: "k".into(), by: 1 };
            let status = values.increment(Request::new(request)).await.unwrap_err();
            assert_eq!(status.code(), Code::FailedPrecondition);
            assert!(status.message().len() < 1000, "{}", status.message().len());
            let missing = text.repeat(MAX_KEY / text.len());
            let status = values.get_value(key(&missing)).await.unwrap_err();
            assert!(status.code() == Code::NotFound && status.message().len() < 1000);
        }
    }
}
