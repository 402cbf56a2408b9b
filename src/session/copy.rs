use super::*;
impl Session {
    pub(super) fn run_copy(&mut self, _copy: &crate::sql::copy::CopyStatement) -> Result<String, Failure> {
        Err(SessionError::new("0A000", "COPY").into())
    }
}
