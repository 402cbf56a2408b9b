//! Bytes that no honest client sends: every answer is a value or an error.

use super::*;
