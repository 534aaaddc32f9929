//! Owns the speed of the queue itself: jobs that come in, jobs that carry nothing to do.

use crate::Sizes;

pub async fn all(_sizes: Sizes) {}
