//! All encodings of a message have one canonical form, with the same meaning.

use super::{super::Methods, DEEPEST, MOST_FIELDS, is_canonical, ordered};
use proptest::prelude::*;
use prost::{Message, encoding::encode_varint};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
    MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use std::collections::BTreeMap;

/// A message with a field of each form.
#[allow(clippy::use_self)] // The derive needs the name.
#[derive(Clone, PartialEq, prost::Message)]
struct Order {
    #[prost(int32, tag = "1")]
    n: i32,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(sint64, repeated, tag = "3")]
    many: Vec<i64>,
    #[prost(string, repeated, tag = "4")]
    texts: Vec<String>,
    #[prost(btree_map = "string, message", tag = "5")]
    map: BTreeMap<String, Order>,
    #[prost(message, optional, boxed, tag = "6")]
    inner: Option<Box<Order>>,
    #[prost(uint32, optional, tag = "7")]
    maybe: Option<u32>,
    #[prost(oneof = "Either", tags = "8, 9")]
    either: Option<Either>,
    #[prost(bool, tag = "10")]
    flag: bool,
    #[prost(fixed64, tag = "11")]
    fixed: u64,
    #[prost(btree_map = "int32, bool", tag = "12")]
    flags: BTreeMap<i32, bool>,
    #[prost(fixed32, repeated, tag = "300")]
    fixeds: Vec<u32>,
    #[prost(fixed64, repeated, tag = "301")]
    wide: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Either {
    #[prost(string, tag = "8")]
    Left(String),
    #[prost(message, tag = "9")]
    Right(Box<Order>),
}

const PATH: &str = "/shop.Shop/Place";

fn field(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        r#type: Some(kind.into()),
        label: Some(Label::Optional.into()),
        ..Default::default()
    }
}

fn message(name: &str, number: i32, type_name: &str) -> FieldDescriptorProto {
    let type_name = Some(format!(".shop.{type_name}"));
    FieldDescriptorProto { type_name, ..field(name, number, Type::Message) }
}

fn repeated(field: FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { label: Some(Label::Repeated.into()), ..field }
}

fn of_oneof(index: i32, field: FieldDescriptorProto) -> FieldDescriptorProto {
    FieldDescriptorProto { oneof_index: Some(index), ..field }
}

fn entry(name: &str, key: Type, value: FieldDescriptorProto) -> DescriptorProto {
    DescriptorProto {
        name: Some(name.into()),
        field: vec![field("key", 1, key), value],
        options: Some(MessageOptions { map_entry: Some(true), ..Default::default() }),
        ..Default::default()
    }
}

fn methods() -> Methods {
    let order = DescriptorProto {
        name: Some("Order".into()),
        field: vec![
            field("n", 1, Type::Int32),
            field("text", 2, Type::String),
            repeated(field("many", 3, Type::Sint64)),
            repeated(field("texts", 4, Type::String)),
            repeated(message("map", 5, "Order.MapEntry")),
            message("inner", 6, "Order"),
            of_oneof(1, field("maybe", 7, Type::Uint32)),
            of_oneof(0, field("left", 8, Type::String)),
            of_oneof(0, message("right", 9, "Order")),
            field("flag", 10, Type::Bool),
            field("fixed", 11, Type::Fixed64),
            repeated(message("flags", 12, "Order.FlagsEntry")),
            repeated(field("fixeds", 300, Type::Fixed32)),
            repeated(field("wide", 301, Type::Fixed64)),
        ],
        nested_type: vec![
            entry("MapEntry", Type::String, message("value", 2, "Order")),
            entry("FlagsEntry", Type::Int32, field("value", 2, Type::Bool)),
        ],
        oneof_decl: vec![OneofDescriptorProto::default(); 2],
        ..Default::default()
    };
    let place = MethodDescriptorProto {
        name: Some("Place".into()),
        input_type: Some(".shop.Order".into()),
        ..Default::default()
    };
    let shop = ServiceDescriptorProto {
        name: Some("Shop".into()),
        method: vec![place],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        package: Some("shop".into()),
        syntax: Some("proto3".into()),
        message_type: vec![order],
        service: vec![shop],
        ..Default::default()
    };
    let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
    Methods::from_file_descriptor_set(&encoded).unwrap()
}

fn canonical(bytes: &[u8]) -> Vec<u8> {
    methods().canonical_request(PATH, bytes).into_owned()
}

/// A varint in more bytes than it needs.
fn long_varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(value, &mut out);
    if out.len() < 9 {
        *out.last_mut().unwrap() |= 0x80;
        out.push(0);
    }
    out
}

fn tagged(number: u32, wire_type: u8, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(u64::from(number) << 3 | u64::from(wire_type), &mut out);
    out.extend_from_slice(value);
    out
}

fn delimited(number: u32, value: &[u8]) -> Vec<u8> {
    let mut length = Vec::new();
    encode_varint(value.len() as u64, &mut length);
    tagged(number, 2, &[&length, value].concat())
}

fn varint() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![0_u64..3, any::<u64>()];
    (value, any::<bool>()).prop_map(|(value, long)| {
        let mut short = Vec::new();
        encode_varint(value, &mut short);
        if long { long_varint(value) } else { short }
    })
}

/// Any way to write one field of an [`Order`].
fn one(inner: impl Strategy<Value = Vec<u8>> + Clone + 'static) -> BoxedStrategy<Vec<u8>> {
    let text = || "[ab]{0,2}".prop_map(|text| text.into_bytes());
    let key = prop::option::of(text()).prop_map(|key| key.map(|key| delimited(1, &key)));
    let value = prop::option::of(inner.clone().prop_map(|value| delimited(2, &value)));
    let entry = (key, value, any::<bool>()).prop_map(|(key, value, is_turned)| {
        let mut parts = [key.unwrap_or_default(), value.unwrap_or_default()];
        if is_turned {
            parts.reverse();
        }
        delimited(5, &parts.concat())
    });
    let flags = (varint(), varint()).prop_map(|(key, value)| {
        delimited(12, &[tagged(1, 0, &key), tagged(2, 0, &value)].concat())
    });
    prop_oneof![
        varint().prop_map(|value| tagged(1, 0, &value)),
        text().prop_map(|value| delimited(2, &value)),
        varint().prop_map(|value| tagged(3, 0, &value)),
        prop::collection::vec(varint(), 0..3).prop_map(|values| delimited(3, &values.concat())),
        text().prop_map(|value| delimited(4, &value)),
        entry,
        inner.clone().prop_map(|value| delimited(6, &value)),
        varint().prop_map(|value| tagged(7, 0, &value)),
        text().prop_map(|value| delimited(8, &value)),
        inner.prop_map(|value| delimited(9, &value)),
        varint().prop_map(|value| tagged(10, 0, &value)),
        prop_oneof![Just([0_u8; 8]), any::<[u8; 8]>()].prop_map(|value| tagged(11, 1, &value)),
        flags,
        any::<[u8; 4]>().prop_map(|value| tagged(300, 5, &value)),
        any::<[[u8; 4]; 2]>().prop_map(|values| delimited(300, &values.concat())),
        any::<[u8; 8]>().prop_map(|value| tagged(301, 1, &value)),
        any::<[[u8; 8]; 2]>().prop_map(|values| delimited(301, &values.concat())),
    ]
    .boxed()
}

/// Any way to write an [`Order`].
fn written() -> BoxedStrategy<Vec<u8>> {
    let many = |one| prop::collection::vec(one, 0..5).prop_map(|all: Vec<Vec<u8>>| all.concat());
    let leaf = many(one(Just(Vec::new())));
    leaf.clone().prop_recursive(2, 16, 4, move |inner| many(one(inner))).boxed()
}

// catalogue: S-F12
#[test]
fn another_member_of_a_oneof_clears_the_one_before() {
    let one = |inner: &[u8]| delimited(9, inner);
    let between = [one(&tagged(1, 0, &[1])), delimited(8, b""), one(b"")].concat();
    assert_eq!(canonical(&between), one(b""));
    let merged = [one(&tagged(1, 0, &[1])), one(&tagged(7, 0, &[2]))].concat();
    assert_eq!(canonical(&merged), one(&[tagged(1, 0, &[1]), tagged(7, 0, &[2])].concat()));
    for bytes in [between, merged] {
        assert_eq!(canonical(&bytes), Order::decode(&*bytes).unwrap().encode_to_vec());
    }
}

proptest! {
    #[test]
    fn the_form_means_what_was_written(bytes in written()) {
        let form = canonical(&bytes);
        let order = Order::decode(&*bytes).unwrap();
        prop_assert_eq!(&Order::decode(&*form).unwrap(), &order);
        prop_assert_eq!(&canonical(&form), &form, "it is its own form");
    }

    #[test]
    fn requests_that_a_handler_cannot_tell_apart_have_one_form(a in written(), b in written()) {
        let order = Order::decode(&*a).unwrap();
        prop_assert_eq!(canonical(&a), canonical(&order.encode_to_vec()));
        let same = order == Order::decode(&*b).unwrap();
        prop_assert_eq!(canonical(&a) == canonical(&b), same);
    }

    #[test]
    fn what_is_taken_to_be_in_order_is(bytes in written()) {
        let methods = methods();
        let place = methods.listed[PATH].request.unwrap();
        let form = ordered(&methods.shapes, place, &bytes, 0).unwrap();
        if is_canonical(&methods.shapes, place, &bytes, 0) == Some(true) {
            prop_assert_eq!(form, bytes);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = canonical(&bytes);
        let _ = methods().request_id(PATH, &bytes);
    }

    #[test]
    fn what_the_proto_does_not_list_counts_in_any_order(
        mut parts in prop::collection::vec(
            (1_u32..60, "[ab]{0,3}").prop_map(|(n, text)| delimited(100 + n % 3, text.as_bytes())),
            0..5,
        ),
        turn in 0_usize..5,
    ) {
        let form = canonical(&parts.concat());
        let turn = turn.min(parts.len());
        parts.rotate_left(turn);
        prop_assert_eq!(&canonical(&parts.concat()), &form);
        parts.push(delimited(100, b"more"));
        prop_assert_ne!(&canonical(&parts.concat()), &form);
    }
}

#[test]
fn what_is_usually_written_is_in_order_and_not_copied() {
    let inner = Order { n: 7, text: "x".into(), ..Order::default() };
    let order = Order {
        n: -1,
        text: "a".into(),
        many: vec![1, -2],
        texts: vec!["b".into(), String::new()],
        map: BTreeMap::from([("k".into(), inner.clone())]),
        inner: Some(Box::new(inner)),
        maybe: Some(0),
        either: Some(Either::Left("l".into())),
        flag: true,
        fixed: 9,
        flags: BTreeMap::from([(1, true)]),
        fixeds: vec![0, 1],
        wide: vec![2, 3],
    };
    let (bytes, methods) = (order.encode_to_vec(), methods());
    assert!(matches!(methods.canonical_request(PATH, &bytes), std::borrow::Cow::Borrowed(_)));
}

#[test]
fn groups_are_skipped_and_broken_or_too_deep_messages_are_unchanged() {
    let group = |number, inner: &[u8]| [tagged(number, 3, inner), tagged(number, 4, &[])].concat();
    let (a, b) = (group(200, &group(201, &[8, 1])), delimited(2, b"x"));
    assert_eq!(canonical(&[&*a, &b].concat()), canonical(&[&*b, &a].concat()));
    let mut deep = Vec::new();
    for _ in 0..150 {
        deep = [delimited(6, &deep), delimited(2, b"x")].concat();
    }
    for broken in [&[8][..], &[10, 9, 1], &[7 << 3 | 4], &[0, 1], &tagged(200, 3, &[8, 1]), &deep] {
        assert_eq!(canonical(broken), broken);
    }
}

#[test]
fn a_message_with_too_many_fields_is_unchanged() {
    let many = [10, 0, 18, 0].repeat(super::MOST_FIELDS);
    assert_eq!(canonical(&many), many);
}

#[test]
fn a_request_id_is_the_one_that_the_handler_sees() {
    let id = |oneof: Option<i32>| FieldDescriptorProto {
        oneof_index: oneof,
        ..field("request_id", 1, Type::String)
    };
    let taking = |oneof| {
        let other = FieldDescriptorProto { oneof_index: oneof, ..field("other", 2, Type::Int32) };
        let inner = DescriptorProto {
            name: Some("Inner".into()),
            field: vec![id(oneof), other],
            ..Default::default()
        };
        let outer = DescriptorProto {
            name: Some("Outer".into()),
            nested_type: vec![inner],
            ..Default::default()
        };
        let method = MethodDescriptorProto {
            name: Some("Place".into()),
            input_type: Some(".shop.Outer.Inner".into()),
            ..Default::default()
        };
        let shop = ServiceDescriptorProto {
            name: Some("Shop".into()),
            method: vec![method],
            ..Default::default()
        };
        let file = FileDescriptorProto {
            package: Some("shop".into()),
            message_type: vec![outer],
            service: vec![shop],
            ..Default::default()
        };
        let encoded = FileDescriptorSet { file: vec![file] }.encode_to_vec();
        Methods::from_file_descriptor_set(&encoded).unwrap()
    };
    let (k, empty, other) = (delimited(1, b"k"), delimited(1, b""), tagged(2, 0, &[1]));
    let unknown = [tagged(9, 3, &k), tagged(9, 4, &[])].concat();
    for (parts, alone, in_oneof) in [
        (vec![&k], Some("k"), Some("k")),
        (vec![&empty], None, None),
        (vec![&k, &empty], None, None),
        (vec![&empty, &k], Some("k"), Some("k")),
        (vec![&k, &other], Some("k"), None),
        (vec![&other, &k], Some("k"), Some("k")),
        (vec![&unknown, &k], Some("k"), Some("k")),
        (vec![&unknown], None, None),
    ] {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        for (oneof, expected) in [(None, alone), (Some(0), in_oneof)] {
            let methods = taking(oneof);
            let found = methods.request_id(PATH, &bytes).unwrap();
            assert_eq!(found, expected.map(str::as_bytes), "{bytes:?} {oneof:?}");
        }
    }
    for broken in [&[10, 5, 1][..], &[8, 1], &[9 << 3 | 3], &[0]] {
        assert!(taking(None).request_id(PATH, broken).is_err(), "{broken:?}");
        assert_eq!(taking(None).request_id("/shop.Shop/Other", broken).unwrap(), None);
    }
}

#[test]
fn of_a_field_that_occurs_once_the_last_counts() {
    let texts = [delimited(2, b"a"), delimited(2, b"b")];
    assert_eq!(canonical(&texts.concat()), texts[1]);
}

#[test]
fn what_is_written_as_another_type_is_unknown_and_stays_in_its_place() {
    let (text, other) = (delimited(2, b"a"), delimited(1, b"x"));
    assert_eq!(canonical(&[&text[..], &other].concat()), [other, text].concat());
}

#[test]
fn numbers_that_are_cut_off_make_no_message() {
    let n = tagged(1, 0, &[7]);
    for (number, size, whole) in [(300, 4, true), (300, 5, false), (301, 8, true), (301, 12, false)]
    {
        let numbers = delimited(number, &vec![7; size]);
        let turned = [&numbers[..], &n].concat();
        let expected = if whole { [&n[..], &numbers].concat() } else { turned.clone() };
        assert_eq!(canonical(&turned), expected, "{size} bytes of {number}");
    }
}

#[test]
fn a_message_of_more_fields_than_are_counted_is_compared_as_it_is() {
    let field = delimited(2, b"a");
    let of = |fields: usize| field.repeat(fields);
    assert_eq!(canonical(&of(MOST_FIELDS)), field);
    assert_eq!(canonical(&of(MOST_FIELDS + 1)), of(MOST_FIELDS + 1));
}

/// What is in `inner`, this deep, in messages of field 6 or in the values of maps.
fn nested(inner: &[u8], depth: usize, is_in_map: bool) -> Vec<u8> {
    // From the inside out, turned: so that no byte is copied for each level.
    let mut turned: Vec<u8> = inner.iter().rev().copied().collect();
    let mut wrap = |number: u32| {
        let mut head = Vec::new();
        encode_varint(u64::from(number) << 3 | 2, &mut head);
        encode_varint(turned.len() as u64, &mut head);
        turned.extend(head.iter().rev());
    };
    for _ in 0..depth {
        if is_in_map {
            wrap(2);
            wrap(5);
        } else {
            wrap(6);
        }
    }
    turned.reverse();
    turned
}

#[test]
fn messages_are_put_in_order_as_deep_as_prost_reads_them() {
    let (n, text) = (tagged(1, 0, &[7]), delimited(2, b"a"));
    let [turned, sorted] = [[&text[..], &n].concat(), [&n[..], &text].concat()];
    // A value of a map is two levels below.
    for (is_in_map, deepest) in [(false, DEEPEST), (true, DEEPEST / 2)] {
        let nested = |inner: &[u8], depth| nested(inner, depth, is_in_map);
        let same = canonical(&nested(&turned, deepest));
        assert_eq!(same, canonical(&nested(&sorted, deepest)), "in a map: {is_in_map}");
        assert_ne!(same, nested(&turned, deepest));
        let deeper = nested(&turned, deepest + 1);
        assert_eq!(canonical(&deeper), deeper, "in a map: {is_in_map}");
    }
    // And no message is too deep to be looked at.
    let deep = nested(&sorted, 100_000, false);
    assert_eq!(canonical(&deep), deep);
}
