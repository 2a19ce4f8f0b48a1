//! Size of the binaries as they are built for release, which strips them.

use anyhow::{Context, Result};

use crate::process::program;
use crate::report::{line, mebibytes};

/// Prints the size of each binary.
pub(crate) fn measure() -> Result<()> {
    for name in ["spindle-server", "spindle-agent", "spindle"] {
        let path = program(name)?;
        let bytes =
            std::fs::metadata(&path).with_context(|| format!("{} is not built", path.display()))?.len();
        line(&format!("binary: {name}"), &mebibytes(bytes), "");
    }
    Ok(())
}
