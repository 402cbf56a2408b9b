//! COPY. (in work)
