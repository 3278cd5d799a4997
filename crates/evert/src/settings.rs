//! Settings: flags over a file over defaults.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use serde::Deserialize;

/// The flags of `evert serve`.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Directory of the log; made if it does not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// TOML file with the same settings; flags win
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) config: Option<PathBuf>,
    /// Directory whose files COPY may read and write [default: none]
    #[arg(long = "files", value_name = "DIR")]
    pub(crate) files_dir: Option<PathBuf>,
    /// Memory budget, such as 512MB or 4GB [default: a quarter of the machine's]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<String>,
    /// Address of the Kafka door, or "off"; port 0 picks a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "ADDR")]
    pub(crate) kafka: Option<String>,
    /// HOST:PORT that Kafka clients are told to connect to [default: the address they used]
    #[arg(long, value_name = "ADDR")]
    pub(crate) kafka_advertised: Option<String>,
    /// Address of the SQL door (Postgres protocol), or "off" [default: 127.0.0.1:7432]
    #[arg(long, value_name = "ADDR")]
    pub(crate) sql: Option<String>,
    /// Address of the HTTP door, or "off" [default: 127.0.0.1:7080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<String>,
    /// Address of the key-value door (Redis protocol), or "off" [default: 127.0.0.1:7379]
    #[arg(long, value_name = "ADDR")]
    pub(crate) keyvalue: Option<String>,
    /// Directory below which archives in files lie [default: "archives" in the data directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) archives: Option<PathBuf>,
}

const KAFKA: &str = "127.0.0.1:9092";
const SQL: &str = "127.0.0.1:7432";
const KEYVALUE: &str = "127.0.0.1:7379";
const HTTP: &str = "127.0.0.1:7080";

impl Settings {
    /// Fills in what the file of `--config` says and the flags do not.
    pub(crate) fn with_file(mut self) -> Result<Self> {
        let Some(path) = self.config.take() else { return Ok(self) };
        let file = Self::read(&path)?;
        Ok(Self {
            data: self.data.or(file.data),
            config: None,
            files_dir: self.files_dir.or(file.files_dir),
            memory: self.memory.or(file.memory),
            kafka: self.kafka.or(file.kafka),
            kafka_advertised: self.kafka_advertised.or(file.kafka_advertised),
            sql: self.sql.or(file.sql),
            http: self.http.or(file.http),
            keyvalue: self.keyvalue.or(file.keyvalue),
            archives: self.archives.or(file.archives),
        })
    }

    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("in {}", path.display()))
    }

    /// The directory of the log.
    pub(crate) fn data_dir(&self) -> Result<&Path> {
        self.data.as_deref().context("no data directory: give one with --data DIR")
    }

    /// The directory of archives, as an absolute path.
    pub(crate) fn archives_dir(&self) -> Result<PathBuf> {
        let dir = match &self.archives {
            Some(dir) => dir.clone(),
            None => self.data_dir()?.join("archives"),
        };
        std::path::absolute(&dir).with_context(|| format!("no path: {}", dir.display()))
    }

    /// The address of the Kafka door; `None` is off.
    pub(crate) fn kafka(&self) -> Option<&str> {
        door(&self.kafka, KAFKA)
    }

    /// The address of the SQL door; `None` is off.
    pub(crate) fn sql(&self) -> Option<&str> {
        door(&self.sql, SQL)
    }

    /// The address of the HTTP door; `None` is off.
    pub(crate) fn http(&self) -> Option<&str> {
        door(&self.http, HTTP)
    }

    /// The address of the key-value door; `None` is off.
    pub(crate) fn keyvalue(&self) -> Option<&str> {
        door(&self.keyvalue, KEYVALUE)
    }

    /// What Kafka clients are told to connect to, if it is not the address they used.
    pub(crate) fn kafka_advertised(&self) -> Result<Option<(String, u16)>> {
        let Some(address) = &self.kafka_advertised else { return Ok(None) };
        let parsed = address.rsplit_once(':').and_then(|(host, port)| {
            Some((host.to_owned(), port.parse::<u16>().ok()?)).filter(|(host, _)| !host.is_empty())
        });
        parsed.map(Some).with_context(|| format!("--kafka-advertised {address}: not HOST:PORT"))
    }

    /// The memory budget in bytes.
    pub(crate) fn memory_bytes(&self) -> Result<u64> {
        match &self.memory {
            Some(text) => parse_size(text)
                .with_context(|| format!("--memory {text}: not a size such as 512MB or 4GB")),
            None => Ok(machine_memory_bytes() / 4),
        }
    }
}

fn door<'a>(setting: &'a Option<String>, default: &'a str) -> Option<&'a str> {
    Some(setting.as_deref().unwrap_or(default)).filter(|address| *address != "off")
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_uppercase().as_str() {
        "" | "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "M" | "MB" | "MIB" => 1 << 20,
        "G" | "GB" | "GIB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| *bytes > 0)
}

fn machine_memory_bytes() -> u64 {
    const FALLBACK: u64 = 4 << 30;
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map_or(FALLBACK, |kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_size("512MB"), Some(512 << 20));
        assert_eq!(parse_size("4 GiB"), Some(4 << 30));
        assert_eq!(parse_size("1000"), Some(1000));
        for bad in ["", "MB", "0", "-1", "4TBx", "99999999999999999999"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn flags_win_over_the_file_and_unknown_settings_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("evert.toml");
        std::fs::write(&path, "data = \"/d\"\nsql = \"off\"\nkafka = \"1.2.3.4:5\"\n")
            .expect("writes");
        let flags = Settings {
            config: Some(path.clone()),
            kafka: Some("off".into()),
            ..Settings::default()
        };
        let settings = flags.with_file().expect("reads");
        assert_eq!(settings.kafka(), None);
        assert_eq!(settings.sql(), None);
        assert_eq!(settings.http(), Some(HTTP));
        assert_eq!(settings.keyvalue(), Some(KEYVALUE));
        assert_eq!(settings.data_dir().expect("set"), Path::new("/d"));

        std::fs::write(&path, "kafak = \"off\"\n").expect("writes");
        let flags = Settings { config: Some(path), ..Settings::default() };
        assert!(format!("{:#}", flags.with_file().expect_err("refused")).contains("kafak"));
    }
}
