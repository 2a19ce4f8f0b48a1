//! The few lines of DER needed to frame certificates and to read and write public keys. Shortest lengths only.

/// Splits one element of type `tag` off the front: its content, and what follows it.
pub(crate) fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (header, content) = header(bytes, tag)?;
    bytes.get(header..)?.split_at_checked(content)
}

/// Lengths of the header and of the content of the element at the start of `bytes`, which may be cut short.
pub(crate) fn header(bytes: &[u8], tag: u8) -> Option<(usize, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let (&len, rest) = rest.split_first()?;
    if first != tag {
        return None;
    }
    if len < 0x80 {
        return Some((2, usize::from(len)));
    }
    // Four length bytes cover 4 GiB, more than any input here.
    let count = usize::from(len & 0x7f);
    let digits = rest.get(..count)?;
    if !(1..=4).contains(&count) || digits[0] == 0 {
        return None;
    }
    let len = digits.iter().fold(0_u64, |len, &digit| len << 8 | u64::from(digit));
    if len < 0x80 { None } else { Some((2 + count, usize::try_from(len).ok()?)) }
}

/// The content of a positive INTEGER without its sign byte.
pub(crate) fn take_positive_integer(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (content, rest) = take(bytes, INTEGER)?;
    match content {
        [0, second, ..] if second & 0x80 != 0 => Some((&content[1..], rest)),
        [first, ..] if *first != 0 && first & 0x80 == 0 => Some((content, rest)),
        _ => None,
    }
}

/// One element whose content is the given parts in a row.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    if len < 0x80 {
        bytes.push(len.to_be_bytes()[size_of::<usize>() - 1]);
    } else {
        let digits = len.to_be_bytes();
        let zeros = digits.iter().take_while(|&&digit| digit == 0).count();
        let count = digits.len() - zeros;
        bytes.push(0x80 | count.to_be_bytes()[size_of::<usize>() - 1]);
        bytes.extend_from_slice(&digits[zeros..]);
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// An INTEGER of big-endian bytes that have no leading zero.
pub(crate) fn positive_integer(big_endian: &[u8]) -> Vec<u8> {
    let sign: &[u8] = if big_endian.first().is_some_and(|first| first & 0x80 != 0) { &[0] } else { &[] };
    element(INTEGER, &[sign, big_endian])
}

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const SEQUENCE: u8 = 0x30;
