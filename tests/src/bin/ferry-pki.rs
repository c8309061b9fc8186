//! Throw-away certificates for programs that are not Rust: `ferry-pki FOLDER` makes FOLDER/source and
//! FOLDER/target, as QEMU's tls-creds-x509 has them, for source.test and target.test; and FOLDER/stranger,
//! a source's and a target's that another authority signed for the same names.

use std::path::Path;
use std::{env, fs, io};

use vfio_ferry_tests::pki::{Authority, Validity};

fn main() -> io::Result<()> {
    let folder =
        env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: ferry-pki FOLDER"))?;
    let folder = Path::new(&folder);
    let (known, other) = (Authority::throw_away(), Authority::throw_away());
    put(&folder.join("source"), &known, &known, &["client"])?;
    put(&folder.join("target"), &known, &known, &["server"])?;
    put(&folder.join("stranger"), &known, &other, &["client", "server"])
}

/// Who trusts the first one, and was signed by the second one.
fn put(folder: &Path, trusts: &Authority, signed: &Authority, roles: &[&str]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("ca-cert.pem"), trusts.pem())?;
    for role in roles {
        let name = if *role == "client" { "source.test" } else { "target.test" };
        let own = signed.issue(name, Validity::Valid);
        fs::write(folder.join(format!("{role}-cert.pem")), own.certificates)?;
        fs::write(folder.join(format!("{role}-key.pem")), own.key)?;
    }
    Ok(())
}
