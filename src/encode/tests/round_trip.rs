//! Values of all sizes, to the wire and back.

use super::*;
