//! Blocks are read back by a plain reference decoder that keeps the real texts, with another Huffman implementation.

use bolero::TypeGenerator;
use httlib_huffman::DecoderSpeed;

use super::*;

type Field = (Vec<u8>, Vec<u8>);

/// The receiving end, as RFC 7541 describes it, with no thought of speed.
#[derive(Default)]
struct Reference {
    entries: VecDeque<Field>,
    bytes_max: Option<usize>,
}

impl Reference {
    fn decode(&mut self, block: &[u8]) -> Vec<Field> {
        let (mut at, mut fields) = (0, Vec::new());
        while at < block.len() {
            let first = block[at];
            if first >= 0x80 {
                let index = integer(block, &mut at, 7);
                fields.push(self.field(index));
            } else if first & 0xe0 == 0x20 {
                self.bytes_max = Some(integer(block, &mut at, 5));
                self.evict();
            } else {
                let is_kept = first & 0x40 != 0;
                let index = integer(block, &mut at, if is_kept { 6 } else { 4 });
                let name = if index == 0 { string(block, &mut at) } else { self.field(index).0 };
                let field = (name, string(block, &mut at));
                if is_kept {
                    self.entries.push_front(field.clone());
                    self.evict();
                }
                fields.push(field);
            }
        }
        fields
    }

    fn field(&self, index: usize) -> Field {
        match STATIC_NAMES.get(index - 1) {
            Some(name) => (name.as_bytes().to_vec(), Vec::new()),
            None => self.entries[index - 62].clone(),
        }
    }

    fn evict(&mut self) {
        let bytes = |entries: &VecDeque<Field>| -> usize {
            entries.iter().map(|(n, v)| n.len() + v.len() + 32).sum()
        };
        while bytes(&self.entries) > self.bytes_max.unwrap_or(4096) {
            self.entries.pop_back();
        }
    }
}

fn integer(block: &[u8], at: &mut usize, prefix_bits: u32) -> usize {
    let prefix_max = (1 << prefix_bits) - 1;
    let mut value = usize::from(block[*at]) & prefix_max;
    *at += 1;
    let mut shift = 0;
    while value >= prefix_max {
        value += usize::from(block[*at] & 0x7f) << shift;
        shift += 7;
        *at += 1;
        if block[*at - 1] & 0x80 == 0 {
            break;
        }
    }
    value
}

fn string(block: &[u8], at: &mut usize) -> Vec<u8> {
    let is_huffman = block[*at] & 0x80 != 0;
    let len = integer(block, at, 7);
    let bytes = &block[*at..*at + len];
    *at += len;
    let mut text = Vec::new();
    if is_huffman {
        httlib_huffman::decode(bytes, &mut text, DecoderSpeed::OneBit).unwrap();
    } else {
        text.extend_from_slice(bytes);
    }
    text
}

/// How a field is written.
#[derive(Clone, Copy, Debug, TypeGenerator)]
enum Form {
    Kept,
    Passing,
    NeverKept,
}

fn put_string(block: &mut Vec<u8>, text: &[u8], is_huffman: bool) {
    if is_huffman {
        let mut encoded = Vec::new();
        httlib_huffman::encode(text, &mut encoded).unwrap();
        let start = block.len();
        put_length(block, encoded.len());
        block[start] |= 0x80;
        block.extend(encoded);
    } else {
        put_length(block, text.len());
        block.extend_from_slice(text);
    }
}

fn put_prefixed(block: &mut Vec<u8>, form: Form, index: usize) {
    let (flag, bits) = match form {
        Form::Kept => (0x40, 6),
        Form::Passing => (0x00, 4),
        Form::NeverKept => (0x10, 4),
    };
    let prefix_max = (1_usize << bits) - 1;
    if index < prefix_max {
        block.push(flag | index as u8);
    } else {
        block.extend([flag | prefix_max as u8, (index - prefix_max) as u8]);
    }
}

fn named(form: Form, name: &[u8], value: &[u8], is_huffman: bool) -> Vec<u8> {
    let mut block = Vec::new();
    put_prefixed(&mut block, form, 0);
    put_string(&mut block, name, is_huffman);
    put_string(&mut block, value, is_huffman);
    block
}

fn indexed(form: Form, index: usize, value: &[u8], is_huffman: bool) -> Vec<u8> {
    let mut block = Vec::new();
    put_prefixed(&mut block, form, index);
    put_string(&mut block, value, is_huffman);
    block
}

fn rewritten(block: &[u8]) -> Vec<u8> {
    rewrite(block, &mut Table::new()).unwrap().unwrap_or_else(|| block.to_vec())
}

#[track_caller]
fn authority_becomes(block: &[u8], expected: &str) {
    let fields = Reference::default().decode(&rewritten(block));
    assert_eq!(fields, [(AUTHORITY.to_vec(), expected.as_bytes().to_vec())]);
}

const FORMS: [Form; 3] = [Form::Kept, Form::Passing, Form::NeverKept];

#[test]
fn grpc_core_sends_an_escaped_path_with_a_literal_name() {
    for form in FORMS {
        for is_huffman in [false, true] {
            let block = named(form, AUTHORITY, b"tmp%2F..%2Ft.sock", is_huffman);
            authority_becomes(&block, "tmp-2F..-2Ft.sock");
        }
    }
}

#[test]
fn java_sends_a_bare_path_with_an_indexed_name() {
    for form in FORMS {
        for is_huffman in [false, true] {
            authority_becomes(&indexed(form, 1, b"/tmp/../t.sock", is_huffman), "-tmp-..-t.sock");
        }
    }
}

#[test]
fn a_plain_value_is_replaced_byte_for_byte() {
    let block = indexed(Form::Kept, 1, b"/tmp/../t.sock", false);
    let expected = indexed(Form::Kept, 1, b"-tmp-..-t.sock", false);
    assert_eq!(rewritten(&block), expected);
}

#[test]
fn bytes_with_long_huffman_codes_are_replaced_as_others_are() {
    authority_becomes(&indexed(Form::Kept, 1, b"a\\b{c}\x00\xff", true), "a-b-c---");
}

#[test]
fn huffman_code_is_written_out_wherever_it_stands() {
    let all = |is_huffman| {
        let fields = FORMS.map(|form| {
            let name = named(form, b"user-agent", b"grpc-go/1.81.1", is_huffman);
            [name, indexed(form, 1, b"localhost", is_huffman), indexed(form, 4, b"/x/y", is_huffman)].concat()
        });
        [&[0x83, 0x86][..], &fields.concat(), &[0x82]].concat()
    };
    assert_eq!(rewritten(&all(true)), all(false));
    assert_eq!(rewrite(&all(false), &mut Table::new()), Ok(None));
}

#[test]
fn proper_authorities_stay_as_they_are() {
    for authority in
        ["localhost", "localhost:8080", "example.org", "[::1]:443", "127.0.0.1:1", "a_b-c.d~e", "u@h"]
    {
        let plain = indexed(Form::Kept, 1, authority.as_bytes(), false);
        assert_eq!(rewrite(&plain, &mut Table::new()), Ok(None), "{authority}");
        assert_eq!(rewritten(&indexed(Form::Kept, 1, authority.as_bytes(), true)), plain);
    }
}

#[test]
fn an_empty_authority_is_left_to_the_library() {
    for block in [indexed(Form::Kept, 1, b"", false), vec![0x81]] {
        assert_eq!(rewrite(&block, &mut Table::new()), Ok(None));
    }
}

#[test]
fn other_fields_with_paths_in_them_are_not_touched() {
    let block = [
        indexed(Form::Kept, 4, b"/SpiffeWorkloadAPI/FetchX509SVID", false),
        named(Form::Kept, b"authority", b"/tmp/x", false),
        named(Form::Kept, b":Authority", b"/tmp/x", false),
        indexed(Form::Passing, 38, b"/tmp/x", false),
    ]
    .concat();
    assert_eq!(rewrite(&block, &mut Table::new()), Ok(None));
}

#[test]
fn the_fields_around_a_bad_authority_stay() {
    let around = [vec![0x83, 0x86], indexed(Form::Kept, 4, b"/x/y", false)].concat();
    let tail = named(Form::Passing, b"te", b"trailers", false);
    let block = [around.clone(), indexed(Form::Kept, 1, b"/s", false), tail.clone()].concat();
    assert_eq!(rewritten(&block), [around, indexed(Form::Kept, 1, b"-s", false), tail].concat());
}

#[test]
fn a_name_taken_from_the_dynamic_table_is_known() {
    let mut table = Table::new();
    let first = named(Form::Kept, AUTHORITY, b"localhost", false);
    let other = named(Form::Kept, b"x", b"y", false);
    assert_eq!(rewrite(&[first, other].concat(), &mut table), Ok(None));
    let block = indexed(Form::Passing, 63, b"/s", false);
    assert_eq!(rewrite(&block, &mut table), Ok(Some(indexed(Form::Passing, 63, b"-s", false))));
    let not_it = indexed(Form::Passing, 62, b"/s", false);
    assert_eq!(rewrite(&not_it, &mut table), Ok(None));
}

#[test]
fn an_evicted_name_is_forgotten() {
    let mut table = Table::new();
    rewrite(&named(Form::Kept, AUTHORITY, b"localhost", false), &mut table).unwrap();
    rewrite(&named(Form::Kept, b"x", &[b'v'; 4040], false), &mut table).unwrap();
    assert_eq!(table.entries.len(), 1);
    assert_eq!(rewrite(&indexed(Form::Passing, 63, b"/s", false), &mut table), Err(Malformed));
}

#[test]
fn a_smaller_table_forgets_and_a_field_too_large_empties_it() {
    let mut table = Table::new();
    rewrite(&named(Form::Kept, AUTHORITY, b"localhost", false), &mut table).unwrap();
    rewrite(&[0x3f, 0x01], &mut table).unwrap();
    assert_eq!((table.bytes_max, table.entries.len(), table.bytes), (32, 0, 0));
    rewrite(&[0x3f, 0xe1, 0x1f], &mut table).unwrap();
    assert_eq!(table.bytes_max, 4096);
    rewrite(&named(Form::Kept, b"x", b"y", false), &mut table).unwrap();
    rewrite(&named(Form::Kept, b"x", &[b'v'; 4096], false), &mut table).unwrap();
    assert_eq!((table.entries.len(), table.bytes), (0, 0));
}

#[test]
fn malformed_blocks_are_refused() {
    let mut huge_integer = vec![0xff];
    huge_integer.extend([0xff; 5]);
    for block in [
        vec![0x80],                               // index 0
        vec![0xbe],                               // beyond both tables
        vec![0x7e, 0x01, b'x'],                   // name beyond both tables
        vec![0x3f, 0xe2, 0x1f],                   // table above its bound
        vec![0x41],                               // no value
        vec![0x41, 0x05, b'a'],                   // value cut off
        vec![0x41, 0x81, 0x00],                   // bad Huffman padding
        vec![0x40, 0x84, 0xff, 0xff, 0xff, 0xff], // end symbol in a name
        huge_integer,                             // integer without end
        vec![0x41, 0x7f, 0x80],                   // integer cut off
        vec![0x41, 0x7f, 0xff, 0xff, 0xff, 0x7f], // length of 256 MiB
    ] {
        assert_eq!(rewrite(&block, &mut Table::new()), Err(Malformed), "{block:x?}");
    }
}

/// One field, as a client could write it.
#[derive(Debug, TypeGenerator)]
enum Written {
    Authority {
        form: Form,
        is_literal_name: bool,
        is_huffman: bool,
        value: Vec<u8>,
    },
    Other {
        form: Form,
        is_huffman: bool,
        name: Vec<u8>,
        value: Vec<u8>,
    },
    /// A name by index, and a whole field, from whatever the tables hold then.
    NameByIndex {
        form: Form,
        index: u8,
        value: Vec<u8>,
    },
    ByIndex {
        index: u8,
    },
    Resize {
        bytes_max: u16,
    },
}

impl Written {
    fn write(&self, block: &mut Vec<u8>, held: usize) {
        let pick = |index: u8| usize::from(index) % (61 + held) + 1;
        match self {
            Self::Authority { form, is_literal_name: true, is_huffman, value } => {
                block.extend(named(*form, AUTHORITY, value, *is_huffman));
            }
            Self::Authority { form, is_huffman, value, .. } => {
                block.extend(indexed(*form, 1, value, *is_huffman));
            }
            Self::Other { form, is_huffman, name, value } => {
                block.extend(named(*form, name, value, *is_huffman));
            }
            Self::NameByIndex { form, index, value } => {
                block.extend(indexed(*form, pick(*index), value, true));
            }
            Self::ByIndex { index } => {
                let index = pick(*index);
                block.extend(if index < 0x7f {
                    vec![0x80 | index as u8]
                } else {
                    vec![0xff, (index - 0x7f) as u8]
                });
            }
            Self::Resize { bytes_max } => {
                let bytes_max = usize::from(*bytes_max) % (TABLE_BYTES_MAX + 1);
                // With a prefix of five bits.
                if bytes_max < 31 {
                    block.push(0x20 | bytes_max as u8);
                } else {
                    let rest = bytes_max - 31;
                    block.extend([0x3f, rest as u8 | 0x80, (rest >> 7) as u8]);
                }
            }
        }
    }
}

/// The shortest Huffman code has five bits.
fn grown_at_most(block: &[u8]) -> usize {
    block.len() * 8 / 5 + 1
}

#[test]
fn only_bad_authorities_change_and_keep_their_length_through_a_whole_connection() {
    bolero::check!().with_type::<Vec<Vec<Written>>>().for_each(|blocks| {
        let mut table = Table::new();
        let (mut sender, mut receiver) = (Reference::default(), Reference::default());
        for written in blocks {
            let mut block = Vec::new();
            for field in written {
                // The sender's table as it stands before this field.
                let mut now = Reference { entries: sender.entries.clone(), bytes_max: sender.bytes_max };
                now.decode(&block);
                field.write(&mut block, now.entries.len());
            }
            let new = rewrite(&block, &mut table).unwrap().unwrap_or_else(|| block.clone());
            assert!(new.len() <= grown_at_most(&block));
            let (sent, received) = (sender.decode(&block), receiver.decode(&new));
            assert_eq!(sender.entries.len(), receiver.entries.len());
            assert_eq!(table.entries.len(), receiver.entries.len());
            assert_eq!(sent.len(), received.len());
            for ((sent_name, sent_value), (name, value)) in sent.iter().zip(&received) {
                assert_eq!(sent_name, name);
                assert_eq!(sent_value.len(), value.len());
                if sent_value != value {
                    assert_eq!(name, AUTHORITY);
                    assert!(Authority::try_from(&sent_value[..]).is_err());
                }
                if name == AUTHORITY && !value.is_empty() {
                    assert!(Authority::try_from(&value[..]).is_ok(), "{value:?}");
                }
            }
        }
    });
}

#[test]
fn no_bytes_make_it_panic_or_grow_beyond_what_huffman_code_holds() {
    bolero::check!().for_each(|block: &[u8]| {
        let mut table = Table::new();
        if let Ok(Some(new)) = rewrite(block, &mut table) {
            assert!(new.len() <= grown_at_most(block));
            assert_eq!(rewrite(&new, &mut Table::new()), Ok(None), "a second pass finds nothing");
        }
        assert!(table.entries.len() <= 128 && table.bytes <= TABLE_BYTES_MAX);
    });
}
