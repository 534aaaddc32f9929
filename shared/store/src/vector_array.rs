//! Owns how many vectors go to PostgreSQL in one parameter. Refuses to read any: that is `pgvector`'s.

use std::error::Error;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type, to_sql_checked};

/// A `vector[]`. Element by element and number by number, as arrays are written otherwise, took a tenth of all the
/// worker's time.
#[derive(Debug)]
pub(super) struct VectorArray<'a>(pub Vec<Option<&'a [f32]>>);

impl ToSql for VectorArray<'_> {
    /// PostgreSQL's `array_recv`: dimensions, a flag for nulls, the type; of each dimension length and lower bound; the
    /// elements with their lengths. pgvector's `vector_recv`: dimensions, an unused number, the floats.
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Kind::Array(element) = ty.kind() else {
            return Err("a vector array is written to an array".into());
        };
        let numbers: usize = self.0.iter().flatten().map(|vector| vector.len()).sum();
        out.reserve(20 + 8 * self.0.len() + 4 * numbers);
        out.put_i32(1);
        out.put_i32(i32::from(self.0.iter().any(Option::is_none)));
        out.put_u32(element.oid());
        out.put_i32(i32::try_from(self.0.len())?);
        out.put_i32(1);
        for vector in &self.0 {
            let Some(vector) = vector else {
                out.put_i32(-1);
                continue;
            };
            out.put_i32(i32::try_from(4 + 4 * vector.len())?);
            out.put_u16(u16::try_from(vector.len())?);
            out.put_u16(0);
            let begin = out.len();
            out.resize(begin + 4 * vector.len(), 0);
            let (places, _) = out[begin..].as_chunks_mut::<4>();
            for (place, number) in places.iter_mut().zip(*vector) {
                *place = number.to_be_bytes();
            }
        }
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Array(element) if element.name() == "vector")
    }

    to_sql_checked!();
}
