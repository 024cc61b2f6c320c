//! TEMP
#[derive(Debug)]
pub struct StateDir;
impl StateDir {
    pub fn open(_: &std::path::Path) -> std::io::Result<Self> {
        Ok(Self)
    }
}
