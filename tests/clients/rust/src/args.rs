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
    /// Ask the Delegated Identity API for another workload.
    Delegated,
    /// Follow workloads through the Broker API.
    Broker,
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
    /// Address of the Delegated Identity API, `unix:///path`.
    pub admin: String,
    /// Address of the Broker API, `unix:///path` or `tcp://IP:PORT`.
    pub broker: String,
    /// Processes to ask for, none or more.
    pub pids: Vec<u32>,
    /// What a workload shows, `type:value`, in place of a process.
    pub selectors: Vec<String>,
    /// File with a foreign trust domain's SVID in DER.
    pub foreign: String,
}

impl Args {
    /// Reads `COMMAND --name value ...`; the error is a sentence for the user.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let command = match words.next().as_deref() {
            Some("fetch") => Command::Fetch,
            Some("serve") => Command::Serve,
            Some("dial") => Command::Dial,
            Some("jwt") => Command::Jwt,
            Some("delegated") => Command::Delegated,
            Some("broker") => Command::Broker,
            _ => {
                return Err(
                    "usage: spiffe-client fetch|serve|dial|jwt|delegated|broker --NAME VALUE ...".into()
                );
            }
        };
        let mut args = Self {
            command,
            socket: String::new(),
            rotations: 0,
            port: 0,
            peer: String::new(),
            audience: String::new(),
            other: String::new(),
            admin: String::new(),
            broker: String::new(),
            pids: Vec::new(),
            selectors: Vec::new(),
            foreign: String::new(),
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
                "--admin" => args.admin = value,
                "--broker" => args.broker = value,
                "--pid" => args.pids.push(value.parse().map_err(|error| format!("{name} {value}: {error}"))?),
                "--selector" => args.selectors.push(value),
                "--foreign" => args.foreign = value,
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(args)
    }
}
