//! The command line that all clients share, read by hand to keep the build small.

/// What to do.
pub enum Command {
    /// Follow the Workload API for some rotations.
    Fetch,
    /// Accept connections and echo a line to each.
    Serve,
    /// Connect, send a line and expect it back.
    Dial,
    /// Fetch tokens and have them validated.
    Jwt,
}

/// The parsed command line.
pub struct Args {
    /// What to do.
    pub command: Command,
    /// Address of the Workload API, `unix:///path`.
    pub socket: String,
    /// Rotations to wait for after the first SVID.
    pub rotations: usize,
    /// TCP port on loopback; 0 lets the kernel choose.
    pub port: u16,
    /// The one SPIFFE ID to talk to.
    pub peer: String,
    /// A service to fetch a token for.
    pub audience: String,
    /// Another service.
    pub other: String,
}

impl Args {
    /// Reads `COMMAND --name value ...`; the error is a sentence for the user.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let command = match words.next().as_deref() {
            Some("fetch") => Command::Fetch,
            Some("serve") => Command::Serve,
            Some("dial") => Command::Dial,
            Some("jwt") => Command::Jwt,
            _ => return Err("usage: spiffe-client fetch|serve|dial|jwt --socket unix:///PATH ...".into()),
        };
        let mut args = Self {
            command,
            socket: String::new(),
            rotations: 0,
            port: 0,
            peer: String::new(),
            audience: String::new(),
            other: String::new(),
        };
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse::<u16>().map_err(|error| format!("{name} {value}: {error}"));
            match name.as_str() {
                "--socket" => args.socket = value,
                "--rotations" => args.rotations = number()?.into(),
                "--port" => args.port = number()?,
                "--peer" => args.peer = value,
                "--audience" => args.audience = value,
                "--other" => args.other = value,
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(args)
    }
}
