//! Owns whether the model is compiled in: it has 7.6 MB. Refuses to be asked where it isn't.

use crate::registry::Asked;

#[cfg(feature = "static-model")]
mod model;

#[cfg(feature = "static-model")]
pub(super) const ASKED: Asked = Asked::InProcess(Some(&model::MiniLm));
#[cfg(not(feature = "static-model"))]
pub(super) const ASKED: Asked = Asked::InProcess(None);
