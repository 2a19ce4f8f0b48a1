//! Settings of `files`: flags over a small file, checked. Start at [`FilesSettings::try_from`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::{Group, User};
use spindle_runtime::LogSettings;

use super::folder::Access;
use super::keeper::Withdrawal;
use super::process::Target;
use super::reload::{self, Action};
use super::wanted::{Choice, Names, TokenWish, Wanted, What};
use crate::config::ConfigError;
use crate::config::keys::{Key, Support, check_keys};
use crate::config::logs::RawLogs;
use crate::config::section::Section;
use crate::duration;
use crate::hcl::Item;

/// How long a past generation stays: longer than any program takes to read three files.
const GRACE: Duration = Duration::from_secs(60);

/// How long a reload command may take.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// All that may be said, as it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RawFiles {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) socket_path: Option<PathBuf>,
    pub(crate) spiffe_id: Option<String>,
    pub(crate) hint: Option<String>,
    pub(crate) cert_file: Option<String>,
    pub(crate) key_file: Option<String>,
    pub(crate) bundle_file: Option<String>,
    pub(crate) combined_file: Option<String>,
    pub(crate) federated_bundles: Option<bool>,
    pub(crate) jwt_bundles_file: Option<String>,
    pub(crate) bundles_only: Option<bool>,
    pub(crate) jwt_svids: Vec<TokenWish>,
    pub(crate) key_mode: Option<String>,
    pub(crate) owner: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) grace: Option<String>,
    pub(crate) on_withdrawal: Option<String>,
    pub(crate) reload: RawReload,
    pub(crate) logs: RawLogs,
}

/// The `reload` block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RawReload {
    pub(crate) signal: Option<String>,
    pub(crate) pid: Option<i64>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) process: Option<String>,
    pub(crate) command: Vec<OsString>,
    pub(crate) timeout: Option<String>,
}

/// Ready to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FilesSettings {
    pub(crate) dir: PathBuf,
    pub(crate) socket_path: Option<PathBuf>,
    pub(crate) wanted: Wanted,
    pub(crate) access: Access,
    pub(crate) grace_secs: i64,
    pub(crate) withdrawal: Withdrawal,
    pub(crate) action: Action,
    pub(crate) logs: LogSettings,
}

const TOP: &[Key] = &[
    ("dir", Support::Yes),
    ("socket_path", Support::Yes),
    ("spiffe_id", Support::Yes),
    ("hint", Support::Yes),
    ("cert_file", Support::Yes),
    ("key_file", Support::Yes),
    ("bundle_file", Support::Yes),
    ("combined_file", Support::Yes),
    ("federated_bundles", Support::Yes),
    ("jwt_bundles_file", Support::Yes),
    ("bundles_only", Support::Yes),
    ("jwt_svid", Support::Yes),
    ("key_mode", Support::Yes),
    ("owner", Support::Yes),
    ("group", Support::Yes),
    ("grace", Support::Yes),
    ("on_withdrawal", Support::Yes),
    ("reload", Support::Yes),
    ("log_level", Support::Yes),
    ("log_format", Support::Yes),
    ("log_file", Support::Yes),
    ("log_source_location", Support::Yes),
];

const RELOAD: &[Key] = &[
    ("signal", Support::Yes),
    ("pid", Support::Yes),
    ("pid_file", Support::Yes),
    ("process", Support::Yes),
    ("command", Support::Yes),
    ("timeout", Support::Yes),
];

impl RawFiles {
    /// Reads a parsed file.
    ///
    /// # Errors
    /// The first key that is unknown, repeated or of the wrong kind.
    pub(crate) fn read(items: &[Item]) -> Result<Self, ConfigError> {
        let (top, mut notes) = (Section::new("", items), Vec::new());
        check_keys(&top, TOP, &mut notes)?;
        Ok(Self {
            dir: top.text("dir")?.map(PathBuf::from),
            socket_path: top.text("socket_path")?.map(PathBuf::from),
            spiffe_id: top.text("spiffe_id")?,
            hint: top.text("hint")?,
            cert_file: named(&top, "cert_file")?,
            key_file: named(&top, "key_file")?,
            bundle_file: named(&top, "bundle_file")?,
            combined_file: named(&top, "combined_file")?,
            federated_bundles: top.switch("federated_bundles")?,
            jwt_bundles_file: named(&top, "jwt_bundles_file")?,
            bundles_only: top.switch("bundles_only")?,
            jwt_svids: tokens(&top)?,
            key_mode: top.text("key_mode")?,
            owner: top.text("owner")?,
            group: top.text("group")?,
            grace: top.text("grace")?,
            on_withdrawal: top.text("on_withdrawal")?,
            reload: top
                .block("reload")?
                .map(|section| RawReload::read(&section))
                .transpose()?
                .unwrap_or_default(),
            logs: RawLogs::read(&top)?,
        })
    }

    /// These settings (the flags), with gaps filled from `file`.
    #[must_use]
    pub(crate) fn over(self, file: Self) -> Self {
        let has_wish = self.spiffe_id.is_some() || self.hint.is_some();
        Self {
            dir: self.dir.or(file.dir),
            socket_path: self.socket_path.or(file.socket_path),
            // One wish: a hint of the file does not narrow an ID of the flags.
            spiffe_id: if has_wish { self.spiffe_id } else { file.spiffe_id },
            hint: if has_wish { self.hint } else { file.hint },
            cert_file: self.cert_file.or(file.cert_file),
            key_file: self.key_file.or(file.key_file),
            bundle_file: self.bundle_file.or(file.bundle_file),
            combined_file: self.combined_file.or(file.combined_file),
            federated_bundles: self.federated_bundles.or(file.federated_bundles),
            jwt_bundles_file: self.jwt_bundles_file.or(file.jwt_bundles_file),
            bundles_only: self.bundles_only.or(file.bundles_only),
            jwt_svids: if self.jwt_svids.is_empty() { file.jwt_svids } else { self.jwt_svids },
            key_mode: self.key_mode.or(file.key_mode),
            owner: self.owner.or(file.owner),
            group: self.group.or(file.group),
            grace: self.grace.or(file.grace),
            on_withdrawal: self.on_withdrawal.or(file.on_withdrawal),
            reload: self.reload.over(file.reload),
            logs: self.logs.over(file.logs),
        }
    }
}

/// Unlike elsewhere an empty text says something: no such file.
fn named(top: &Section<'_>, key: &str) -> Result<Option<String>, ConfigError> {
    let is_empty = |item: &Item| item.key == key && item.value == crate::hcl::Value::Text(String::new());
    let empty = top.items().iter().any(is_empty).then(String::new);
    Ok(top.text(key)?.or(empty))
}

/// `jwt_svid "api.token" { audience = ["api"] }`, as often as wanted.
fn tokens(top: &Section<'_>) -> Result<Vec<TokenWish>, ConfigError> {
    let mut wishes = Vec::new();
    for block in top.blocks("jwt_svid")? {
        for item in block.items() {
            let token = block.block_of(item)?;
            check_keys(&token, &[("audience", Support::Yes)], &mut Vec::new())?;
            let key = token.key("audience");
            let audience = token.texts("audience")?.ok_or(ConfigError::Missing { key })?;
            wishes.push(TokenWish { file: item.key.clone(), audience });
        }
    }
    Ok(wishes)
}

impl RawReload {
    fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        check_keys(section, RELOAD, &mut Vec::new())?;
        let command = section.texts("command")?.unwrap_or_default();
        Ok(Self {
            signal: section.text("signal")?,
            pid: section.number("pid")?,
            pid_file: section.text("pid_file")?.map(PathBuf::from),
            process: section.text("process")?,
            command: command.into_iter().map(OsString::from).collect(),
            timeout: section.text("timeout")?,
        })
    }

    /// A process or command of the flags replaces that of the file.
    fn over(self, file: Self) -> Self {
        let says_whom = self.pid.is_some()
            || self.pid_file.is_some()
            || self.process.is_some()
            || !self.command.is_empty();
        let whom = if says_whom { Self { signal: None, ..self.clone() } } else { file.clone() };
        let signal = self.signal.or(if says_whom { None } else { file.signal });
        Self { signal, timeout: self.timeout.or(file.timeout), ..whom }
    }

    fn ready(self) -> Result<Action, ConfigError> {
        let target = self.target()?;
        let limit = match self.timeout.as_deref().map(duration::parse) {
            None => RELOAD_TIMEOUT,
            Some(Ok(limit)) if !limit.is_zero() => limit,
            Some(Ok(_)) => return Err(ConfigError::value("reload.timeout", "no command can be that fast")),
            Some(Err(fault)) => return Err(ConfigError::duration("reload.timeout", &fault)),
        };
        let signal = match self.signal.as_deref().map(reload::signal) {
            None => None,
            Some(Ok(signal)) => Some(signal),
            Some(Err(fault)) => return Err(ConfigError::value("reload.signal", fault)),
        };
        let exclusive = |second: &str| {
            Err(ConfigError::Exclusive { first: "reload.command".into(), second: second.into() })
        };
        match (target, self.command.is_empty()) {
            (Some(_), false) => exclusive("a process to signal"),
            (None, false) if signal.is_some() => exclusive("reload.signal"),
            (None, false) => Ok(Action::Command(self.command, limit)),
            (Some(target), true) => Ok(Action::Signal(signal.unwrap_or(Signal::SIGHUP), target)),
            (None, true) if signal.is_some() => Err(ConfigError::value(
                "reload.signal",
                "which process it is for is said by reload.pid_file, reload.process or reload.pid",
            )),
            (None, true) => Ok(Action::Nothing),
        }
    }

    fn target(&self) -> Result<Option<Target>, ConfigError> {
        let pid = match self.pid.map(|pid| (pid, i32::try_from(pid))) {
            None => None,
            Some((_, Ok(pid))) if pid > 0 => Some(Target::Pid(pid)),
            Some((pid, _)) => return Err(ConfigError::value("reload.pid", format!("{pid} is no process"))),
        };
        let mut targets = [
            ("reload.pid", pid),
            ("reload.pid_file", self.pid_file.clone().map(Target::PidFile)),
            ("reload.process", self.process.clone().map(Target::Name)),
        ]
        .into_iter()
        .filter_map(|(key, target)| Some((key, target?)));
        match (targets.next(), targets.next()) {
            (Some((first, _)), Some((second, _))) => {
                Err(ConfigError::Exclusive { first: first.into(), second: second.into() })
            }
            (first, _) => Ok(first.map(|(_, target)| target)),
        }
    }
}

impl TryFrom<RawFiles> for FilesSettings {
    type Error = ConfigError;

    fn try_from(raw: RawFiles) -> Result<Self, ConfigError> {
        let access = access(&raw)?;
        let grace_secs = match raw.grace.as_deref() {
            None => GRACE.as_secs().cast_signed(),
            Some(text) => {
                duration::parse_secs(text).map_err(|fault| ConfigError::duration("grace", &fault))?
            }
        };
        let withdrawal = match raw.on_withdrawal.as_deref() {
            None | Some("remove") => Withdrawal::Remove,
            Some("keep") => Withdrawal::Keep,
            Some(other) => {
                let what = format!("{other:?} is unknown (known: remove, keep)");
                return Err(ConfigError::value("on_withdrawal", what));
            }
        };
        let what = if raw.bundles_only == Some(true) { What::Bundles } else { What::Identity };
        let names = names(&raw, what)?;
        let choice = choice(raw.spiffe_id.as_deref(), raw.hint.as_deref())?;
        for token in &raw.jwt_svids {
            check_audience(token)?;
        }
        Ok(Self {
            dir: raw.dir.ok_or(ConfigError::Missing { key: "dir".into() })?,
            socket_path: raw.socket_path,
            wanted: Wanted { what, choice, names, tokens: raw.jwt_svids },
            access,
            grace_secs,
            withdrawal,
            action: raw.reload.ready()?,
            logs: raw.logs.ready("")?,
        })
    }
}

/// The names of the files. Without an identity none can be named that needs one.
fn names(raw: &RawFiles, what: What) -> Result<Names, ConfigError> {
    let name = |given: &Option<String>, default| match given {
        Some(name) => Some(name.clone()).filter(|name| !name.is_empty()),
        None => default,
    };
    let jwt_bundles = name(&raw.jwt_bundles_file, None);
    if what == What::Bundles {
        let token = raw.jwt_svids.first().map(|token| token.file.clone());
        let mut others = [
            ("spiffe_id", &raw.spiffe_id),
            ("hint", &raw.hint),
            ("cert_file", &raw.cert_file),
            ("key_file", &raw.key_file),
            ("bundle_file", &raw.bundle_file),
            ("combined_file", &raw.combined_file),
            ("jwt_svid", &token),
        ]
        .into_iter();
        let is_named =
            |(_, given): &(_, &Option<String>)| given.as_ref().is_some_and(|text| !text.is_empty());
        return match others.find(is_named) {
            None => Ok(Names::of_bundles(jwt_bundles)),
            Some((key, _)) => {
                Err(ConfigError::Exclusive { first: "bundles_only".into(), second: key.into() })
            }
        };
    }
    let defaults = Names::default();
    Ok(Names {
        cert: name(&raw.cert_file, defaults.cert),
        key: name(&raw.key_file, defaults.key),
        bundle: name(&raw.bundle_file, defaults.bundle),
        combined: name(&raw.combined_file, defaults.combined),
        federated: raw.federated_bundles.unwrap_or(false),
        jwt_bundles,
    })
}

/// The identity that ID and hint name.
///
/// # Errors
/// When the ID is none.
pub(crate) fn choice(spiffe_id: Option<&str>, hint: Option<&str>) -> Result<Choice, ConfigError> {
    match (spiffe_id, hint) {
        (Some(id), hint) => match id.parse() {
            Ok(id) => Ok(Choice::Id(id, hint.map(str::to_owned))),
            Err(fault) => Err(ConfigError::value("spiffe_id", format!("{id:?}: {fault}"))),
        },
        (None, Some(hint)) => Ok(Choice::Hint(hint.into())),
        (None, None) => Ok(Choice::First),
    }
}

fn check_audience(token: &TokenWish) -> Result<(), ConfigError> {
    match token.audience.is_empty() || token.audience.iter().any(String::is_empty) {
        true => Err(ConfigError::value(
            &format!("jwt_svid.{}.audience", token.file),
            "it needs the name of at least one service, and no empty one",
        )),
        false => Ok(()),
    }
}

fn access(raw: &RawFiles) -> Result<Access, ConfigError> {
    let key_mode = match raw.key_mode.as_deref() {
        None => 0o600,
        Some(text) => match u32::from_str_radix(text, 8) {
            Ok(mode @ (0o400 | 0o440 | 0o600 | 0o640)) => mode,
            _ => {
                let what = format!("{text:?} is no mode for a key (known: 0400, 0440, 0600, 0640)");
                return Err(ConfigError::value("key_mode", what));
            }
        },
    };
    Ok(Access {
        dir_mode: 0o755,
        key_mode,
        owner: numbered("owner", raw.owner.as_deref(), |name| {
            Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
        })?,
        group: numbered("group", raw.group.as_deref(), |name| {
            Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
        })?,
    })
}

/// A user or group by its name or number.
fn numbered(
    key: &str,
    text: Option<&str>,
    find: impl Fn(&str) -> nix::Result<Option<u32>>,
) -> Result<Option<u32>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    if let Ok(number) = text.parse() {
        return Ok(Some(number));
    }
    match find(text) {
        Ok(Some(number)) => Ok(Some(number)),
        Ok(None) => Err(ConfigError::value(key, format!("this machine knows no {text:?}"))),
        Err(error) => Err(ConfigError::value(key, format!("cannot look for {text:?}: {}", error.desc()))),
    }
}

#[cfg(test)]
mod tests;
