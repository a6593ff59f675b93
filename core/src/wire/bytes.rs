//! Numbers, strings and size records: the words that configs and records are made of.

use super::dllama::Letters;
use crate::graph::{NAME_MAX, Name};
use crate::quant::DType;
use crate::wire::{At, Fault, Invalid, Part, ReadError, Spot};
use core::ops::RangeInclusive;
use embedded_io::{Read, ReadExactError, Write};

/// Reads fields and knows where the conversation stands.
pub(in crate::wire) struct Reader<'r, R> {
    inner: &'r mut R,
    part: Part,
    pub(in crate::wire) at: At,
    /// Configs of ops that have none.
    pub(in crate::wire) letters: Letters,
}

impl<'r, R: Read> Reader<'r, R> {
    pub(in crate::wire) fn new(inner: &'r mut R, part: Part) -> Self {
        Self { inner, part, at: At::Top, letters: Letters::default() }
    }

    fn spot(&self, field: &'static str) -> Spot {
        Spot { part: self.part, at: self.at.clone(), field }
    }

    pub(in crate::wire) fn invalid(&self, field: &'static str, fault: Fault) -> Invalid {
        Invalid { spot: self.spot(field), fault }
    }

    /// Fills `out`.
    pub(in crate::wire) fn fill(&mut self, field: &'static str, out: &mut [u8]) -> Result<(), ReadError<R::Error>> {
        self.inner.read_exact(out).map_err(|error| match error {
            ReadExactError::UnexpectedEof => ReadError::Closed(self.spot(field)),
            ReadExactError::Other(error) => ReadError::Io { part: self.part, error },
        })
    }

    pub(in crate::wire) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], ReadError<R::Error>> {
        let mut bytes = [0; N];
        self.fill(field, &mut bytes)?;
        Ok(bytes)
    }

    pub(in crate::wire) fn u16(&mut self, field: &'static str) -> Result<u16, ReadError<R::Error>> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(in crate::wire) fn u32(&mut self, field: &'static str) -> Result<u32, ReadError<R::Error>> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(in crate::wire) fn u64(&mut self, field: &'static str) -> Result<u64, ReadError<R::Error>> {
        self.array(field).map(u64::from_le_bytes)
    }

    pub(in crate::wire) fn f32(&mut self, field: &'static str) -> Result<f32, ReadError<R::Error>> {
        self.array(field).map(f32::from_le_bytes)
    }

    /// A number that must lie in a range.
    pub(in crate::wire) fn within(
        &mut self,
        field: &'static str,
        allowed: RangeInclusive<u32>,
    ) -> Result<u32, ReadError<R::Error>> {
        let found = self.u32(field)?;
        self.allow(field, found, allowed)?;
        Ok(found)
    }

    /// Checks that a number that was read lies in a range.
    pub(in crate::wire) fn allow(
        &self,
        field: &'static str,
        found: u32,
        allowed: RangeInclusive<u32>,
    ) -> Result<(), ReadError<R::Error>> {
        if allowed.contains(&found) {
            return Ok(());
        }
        let (min, max) = ((*allowed.start()).into(), (*allowed.end()).into());
        Err(self.invalid(field, Fault::Range { found: found.into(), min, max }).into())
    }

    /// An index into something that has `count` entries.
    pub(in crate::wire) fn index(&mut self, field: &'static str, count: u32) -> Result<u32, ReadError<R::Error>> {
        let found = self.u32(field)?;
        if found < count {
            return Ok(found);
        }
        Err(self.invalid(field, Fault::Range { found: found.into(), min: 0, max: u64::from(count) - 1 }).into())
    }

    /// A number that is known beforehand.
    pub(in crate::wire) fn exactly(&mut self, field: &'static str, expected: u32) -> Result<(), ReadError<R::Error>> {
        let found = self.u32(field)?;
        self.same(field, found.into(), expected.into())
    }

    /// Checks a value that follows from others.
    pub(in crate::wire) fn same(
        &self,
        field: &'static str,
        found: u64,
        expected: u64,
    ) -> Result<(), ReadError<R::Error>> {
        if found == expected {
            return Ok(());
        }
        Err(self.invalid(field, Fault::Differs { found, expected }).into())
    }

    /// A string of `min` to `N` bytes, the NUL that closes it not counted. Its length is a field of its own.
    pub(in crate::wire) fn text<const N: usize>(
        &mut self,
        [length, field]: [&'static str; 2],
        min: u32,
    ) -> Result<heapless::String<N>, ReadError<R::Error>> {
        let len = self.within(length, min + 1..=N as u32 + 1)? as usize;
        self.text_of(field, len)
    }

    /// The bytes of a string whose length, NUL included and at most `N + 1`, was read before.
    pub(in crate::wire) fn text_of<const N: usize>(
        &mut self,
        field: &'static str,
        len: usize,
    ) -> Result<heapless::String<N>, ReadError<R::Error>> {
        let mut bytes = heapless::Vec::<u8, N>::new();
        // Both callers checked `len` against `N`.
        bytes.resize(len - 1, 0).expect("a checked length fits");
        self.fill(field, &mut bytes)?;
        let [close] = self.array(field)?;
        match heapless::String::from_utf8(bytes) {
            Ok(text) if close == 0 && !text.contains('\0') => Ok(text),
            _ => Err(self.invalid(field, Fault::Text).into()),
        }
    }

    /// A name that is [`NAME_MAX`] bytes at most.
    pub(in crate::wire) fn name(&mut self) -> Result<Name, ReadError<R::Error>> {
        self.text::<NAME_MAX>(["name length", "name"], 0)
    }

    /// A size record: `None` is the one that stands for no values.
    pub(in crate::wire) fn shape(&mut self, field: &'static str) -> Result<Option<Shape>, ReadError<R::Error>> {
        let code = self.u32("float type")?;
        let [z, y, x] = [self.u32(field)?, self.u32(field)?, self.u32(field)?];
        let [len, bytes, plane_bytes] = [self.u64(field)?, self.u64(field)?, self.u64(field)?];
        if code == u32::MAX {
            for value in [z.into(), y.into(), x.into(), len, bytes, plane_bytes] {
                self.same("size without a float type", value, 0)?;
            }
            return Ok(None);
        }
        let Some(dtype) = DType::from_code(code) else {
            let fault = Fault::Range { found: code.into(), min: 0, max: DType::ALL.len() as u64 - 1 };
            return Err(self.invalid("float type", fault).into());
        };
        for (field, extent) in [("planes", z), ("rows", y), ("width", x)] {
            if extent == 0 {
                let fault = Fault::Range { found: 0, min: 1, max: u32::MAX.into() };
                return Err(self.invalid(field, fault).into());
            }
        }
        let shape = Shape { dtype, planes: z, rows: y, width: x };
        let plane = u64::from(y) * u64::from(x);
        if !plane.is_multiple_of(dtype.block_len()) {
            let fault = Fault::Indivisible { found: plane, by: dtype.block_len() };
            return Err(self.invalid("length of a plane", fault).into());
        }
        let too_large = || self.invalid(field, Fault::TooLarge);
        let expected = shape.bytes().filter(|bytes| *bytes <= i64::MAX as u64).ok_or_else(too_large)?;
        let expected_len = plane.checked_mul(z.into()).ok_or_else(too_large)?;
        self.same("length", len, expected_len)?;
        self.same("bytes", bytes, expected)?;
        self.same("bytes of a plane", plane_bytes, expected / u64::from(z))?;
        Ok(Some(shape))
    }

    /// A size record of something that is there.
    pub(in crate::wire) fn solid(&mut self, field: &'static str) -> Result<Shape, ReadError<R::Error>> {
        self.shape(field)?.ok_or_else(|| self.invalid(field, Fault::Missing).into())
    }
}

/// What a size record describes: `planes × rows × width` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) struct Shape {
    pub(in crate::wire) dtype: DType,
    pub(in crate::wire) planes: u32,
    pub(in crate::wire) rows: u32,
    pub(in crate::wire) width: u32,
}

impl Shape {
    fn bytes(&self) -> Option<u64> {
        let plane = self.dtype.bytes(u64::from(self.rows) * u64::from(self.width))?;
        plane.checked_mul(self.planes.into())
    }
}

/// As much of `text` as has up to `max` bytes and no NUL, which would close it.
pub(in crate::wire) fn cut(text: &str, max: usize) -> &str {
    let text = text.split('\0').next().unwrap_or_default();
    let end = (0..=text.len().min(max)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

pub(in crate::wire) fn put_u32<W: Write>(writer: &mut W, value: u32) -> Result<(), W::Error> {
    writer.write_all(&value.to_le_bytes())
}

pub(in crate::wire) fn put_u64<W: Write>(writer: &mut W, value: u64) -> Result<(), W::Error> {
    writer.write_all(&value.to_le_bytes())
}

/// Writes a string, its length first and a NUL last.
pub(in crate::wire) fn put_text<W: Write>(writer: &mut W, text: &str) -> Result<(), W::Error> {
    put_u32(writer, text.len() as u32 + 1)?;
    writer.write_all(text.as_bytes())?;
    writer.write_all(&[0])
}

/// Writes a size record.
pub(in crate::wire) fn put_shape<W: Write>(writer: &mut W, shape: Option<Shape>) -> Result<(), W::Error> {
    let Some(shape) = shape else {
        put_u32(writer, u32::MAX)?;
        return writer.write_all(&[0; 36]);
    };
    let plane = u64::from(shape.rows) * u64::from(shape.width);
    for word in [shape.dtype.code(), shape.planes, shape.rows, shape.width] {
        put_u32(writer, word)?;
    }
    let planes = u64::from(shape.planes);
    let plane_bytes = shape.dtype.bytes(plane).expect("a graph's shapes are whole blocks");
    for size in [planes * plane, planes * plane_bytes, plane_bytes] {
        put_u64(writer, size)?;
    }
    Ok(())
}
