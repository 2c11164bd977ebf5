//! What becomes of a call with a key: it is executed, answered from a record, or refused; and which
//! records are kept.

mod claim;
mod follow;
mod outcome;
mod records;
mod shard;

pub use claim::{Claim, Wait};
pub use follow::{InFlight, Next, Refused, Rules, follow};
pub use outcome::{Guarantee, Reach, reach};
pub use records::{Record, Records};
pub use shard::{Caps, Claimed, Evicting, Shard};
