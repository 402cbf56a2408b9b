//! The text of arrays (`array_in`): `{1,NULL,"a b"}`, `{{1,2},{3,4}}`.

use super::kind::Kind;
use super::{Datum, text};
use crate::encode::error::excerpt;
use crate::encode::{EncodeError, Settings};

const MAX_DIMENSIONS: usize = 6;

/// Reads an array whose elements are of this kind. Bounds as in `[1:2]={…}`
/// are read over: lists count from 1 in any case.
pub(super) fn read(element: &Kind, text: &str, settings: &Settings) -> Result<Datum, EncodeError> {
    let malformed = || EncodeError::MalformedArray(excerpt(text));
    let mut body = text::trim(text);
    if body.starts_with('[') {
        let (bounds, rest) = body.split_once('=').ok_or_else(malformed)?;
        let known = |byte: u8| matches!(byte, b'0'..=b'9' | b'[' | b']' | b':' | b'-' | b'+' | b' ');
        if !bounds.bytes().all(known) {
            return Err(malformed());
        }
        body = text::trim(rest);
    }
    let mut reader = Reader {
        rest: body.as_bytes(),
        element,
        settings,
        text,
    };
    if reader.next() != Some(b'{') {
        return Err(malformed());
    }
    let list = reader.list(1)?;
    match reader.rest.is_empty() {
        true => Ok(list),
        false => Err(malformed()),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    element: &'a Kind,
    settings: &'a Settings,
    text: &'a str,
}

impl Reader<'_> {
    fn malformed(&self) -> EncodeError {
        EncodeError::MalformedArray(excerpt(self.text))
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t'..=b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// What follows an opening brace, with the closing one.
    fn list(&mut self, depth: usize) -> Result<Datum, EncodeError> {
        if depth > MAX_DIMENSIONS {
            return Err(self.malformed());
        }
        let mut elements = Vec::new();
        self.skip_space();
        if let [b'}', rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(Datum::List(self.element.clone(), elements));
        }
        loop {
            self.skip_space();
            let element = match self.rest {
                [b'{', rest @ ..] => {
                    self.rest = rest;
                    self.list(depth + 1)?
                }
                [b'"', rest @ ..] => {
                    self.rest = rest;
                    let text = self.quoted()?;
                    text::read(self.element, &text, self.settings)?
                }
                _ => self.bare()?,
            };
            elements.push(element);
            self.skip_space();
            match self.next() {
                Some(b',') => {}
                Some(b'}') => break,
                _ => return Err(self.malformed()),
            }
        }
        // A level has lists or elements, not both.
        let lists = elements
            .iter()
            .filter(|element| matches!(element, Datum::List(..)))
            .count();
        match lists == 0 || lists == elements.len() {
            true => Ok(Datum::List(self.element.clone(), elements)),
            false => Err(self.malformed()),
        }
    }

    /// What follows an opening quote, with the closing one.
    fn quoted(&mut self) -> Result<String, EncodeError> {
        let mut bytes = Vec::new();
        loop {
            match self.next() {
                Some(b'"') => break,
                Some(b'\\') => bytes.push(self.next().ok_or_else(|| self.malformed())?),
                Some(byte) => bytes.push(byte),
                None => return Err(self.malformed()),
            }
        }
        String::from_utf8(bytes).map_err(|_| self.malformed())
    }

    /// An element without quotes, up to the delimiter.
    fn bare(&mut self) -> Result<Datum, EncodeError> {
        let mut bytes = Vec::new();
        // White space at the end does not count, unless it is escaped.
        let mut counts = 0;
        let mut escaped = false;
        while let [byte, rest @ ..] = self.rest {
            match byte {
                b',' | b'}' => break,
                b'{' | b'"' => return Err(self.malformed()),
                b'\\' => {
                    self.rest = rest;
                    escaped = true;
                    bytes.push(self.next().ok_or_else(|| self.malformed())?);
                    counts = bytes.len();
                    continue;
                }
                b' ' | b'\t'..=b'\r' => bytes.push(*byte),
                byte => {
                    bytes.push(*byte);
                    counts = bytes.len();
                }
            }
            self.rest = rest;
        }
        bytes.truncate(counts);
        if bytes.is_empty() {
            return Err(self.malformed());
        }
        if !escaped && bytes.eq_ignore_ascii_case(b"null") {
            return Ok(Datum::Null);
        }
        let text = String::from_utf8(bytes).map_err(|_| self.malformed())?;
        text::read(self.element, &text, self.settings)
    }
}
