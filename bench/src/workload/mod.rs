//! What a load asks: YCSB's workloads, and plain key-value shapes.
//!
//! A [`Workload`] is made from [`Properties`]: first those of its name (`a` to `f` as YCSB's core
//! workloads have them, `core` with nothing but YCSB's defaults, `small` and `large` for plain shapes), then of files, then single ones. Every
//! property that it goes by is told in the report.
//!
//! | file | subject |
//! |---|---|
//! | `properties` | names and values |
//! | `draw` | distributions |
//! | `record` | keys and values |
//! | `setup` | the engine, if it is in this process |

pub mod draw;
pub mod properties;
pub mod record;
mod setup;

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::load::Random;
use draw::{Distribution, Lengths};
pub use properties::Properties;
use record::{KeyForm, ValueForm};
pub use setup::{ScanOrder, Setup};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Reads a record.
    Read,
    /// Replaces one field of a record, which is read for it; or the whole, unread.
    Update,
    /// Writes a record that is new.
    Insert,
    /// Reads some records from a key on.
    Scan,
    /// Reads a record, changes it and writes it back; timed as a whole and in its parts.
    ReadModifyWrite,
    /// Deletes a record.
    Delete,
    /// Reads a record after the run, to see whether what was acknowledged is there.
    Verify,
}

impl Kind {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Update,
        Self::Insert,
        Self::Scan,
        Self::ReadModifyWrite,
        Self::Delete,
        Self::Verify,
    ];

    /// As YCSB calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Update => "UPDATE",
            Self::Insert => "INSERT",
            Self::Scan => "SCAN",
            Self::ReadModifyWrite => "READ-MODIFY-WRITE",
            Self::Delete => "DELETE",
            Self::Verify => "VERIFY",
        }
    }
}

/// Most records of one write: less than targets take at once, by default.
const BATCH_RECORDS_MAX: u64 = 1000;

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteDurability {
    /// When it is on the disk.
    Sync,
    /// When the target has it.
    Buffered,
}

/// A workload: what is asked, of which records, in which shares.
#[derive(Debug, Clone)]
pub struct Workload {
    /// What it is called.
    pub name: String,
    /// Records that there are when a run begins; new ones are numbered from here on.
    pub record_count: u64,
    /// Operations of a run; 0 = until its time is over.
    pub operation_count: u64,
    /// The number of the first record.
    pub insert_start: u64,
    /// Records that a load inserts, and a run asks for.
    pub insert_count: u64,
    /// The share of each kind of operation; together 1.
    pub shares: Vec<(Kind, f64)>,
    /// Which records are asked for.
    pub distribution: Distribution,
    /// How keys look.
    pub key: KeyForm,
    /// How values look.
    pub value: ValueForm,
    /// How many records a scan reads.
    pub scan_lengths: Lengths,
    /// Whether an update replaces all fields without reading them.
    pub write_all_fields: bool,
    /// Records of one write. Only plain values are written in batches of more than one.
    pub batch_records: u64,
    /// How a write is acknowledged.
    pub durability: WriteDurability,
    /// How long written records live, in milliseconds; 0 = for ever.
    pub ttl_ms: u64,
    /// How long a run may take, in seconds; 0 = no bound.
    pub seconds_max: u64,
    /// Operations per second; 0 = as many as possible.
    pub rate: f64,
    /// Operations in flight.
    pub thread_count: usize,
    /// How an engine in this process is set up.
    pub setup: Setup,
    /// What it was made from.
    pub properties: Vec<(String, String)>,
}

/// What a name stands for.
fn preset(name: &str) -> Option<&'static [(&'static str, &'static str)]> {
    Some(match name {
        "a" => &[("readproportion", "0.5"), ("updateproportion", "0.5"), ("requestdistribution", "zipfian")],
        "b" => {
            &[("readproportion", "0.95"), ("updateproportion", "0.05"), ("requestdistribution", "zipfian")]
        }
        "c" => &[("readproportion", "1"), ("updateproportion", "0"), ("requestdistribution", "zipfian")],
        "d" => &[
            ("readproportion", "0.95"),
            ("updateproportion", "0"),
            ("insertproportion", "0.05"),
            ("requestdistribution", "latest"),
        ],
        "e" => &[
            ("readproportion", "0"),
            ("updateproportion", "0"),
            ("scanproportion", "0.95"),
            ("insertproportion", "0.05"),
            ("requestdistribution", "zipfian"),
            ("maxscanlength", "100"),
            ("scanlengthdistribution", "uniform"),
        ],
        "f" => &[
            ("readproportion", "0.5"),
            ("updateproportion", "0"),
            ("readmodifywriteproportion", "0.5"),
            ("requestdistribution", "zipfian"),
        ],
        "core" => &[],
        "small" => &[
            ("keybytes", "32"),
            ("valuebytes", "512"),
            ("recordcount", "100000"),
            ("readproportion", "0.9"),
            ("updateproportion", "0.1"),
        ],
        "large" => &[
            ("keybytes", "256"),
            ("valuebytes", "10240"),
            ("recordcount", "10000"),
            ("readproportion", "0.9"),
            ("updateproportion", "0.1"),
        ],
        _ => return None,
    })
}

impl Workload {
    /// The workload of a name, then of files, then of single properties (`name=value`): what comes later
    /// wins.
    ///
    /// # Errors
    /// [`Error::Usage`] for a name, property or value that there is not; [`Error::File`].
    pub fn new(name: &str, files: &[PathBuf], assignments: &[String]) -> Result<Self> {
        let mut properties = Properties::default();
        let Some(preset) = preset(name) else {
            let text = format!(
                "there is no workload {name:?}: a to f are YCSB's, core has its defaults, small and large are \
                 plain; -P reads a file"
            );
            return Err(Error::Usage(text));
        };
        preset.iter().for_each(|(name, value)| properties.put(name, value));
        files.iter().try_for_each(|path| properties.read(path))?;
        assignments.iter().try_for_each(|assignment| properties.set(assignment))?;
        let workload = Self::of(name, &properties)?;
        properties.check_all_known()?;
        workload.check()?;
        Ok(workload)
    }

    fn of(name: &str, from: &Properties) -> Result<Self> {
        let record_count: u64 = from.number("recordcount", 1000)?;
        let insert_start = from.number("insertstart", 0)?;
        let insert_count = from.number("insertcount", record_count.saturating_sub(insert_start))?;
        let shares = [
            (Kind::Read, from.share("readproportion", 0.95)?),
            (Kind::Update, from.share("updateproportion", 0.05)?),
            (Kind::Insert, from.share("insertproportion", 0.0)?),
            (Kind::Scan, from.share("scanproportion", 0.0)?),
            (Kind::ReadModifyWrite, from.share("readmodifywriteproportion", 0.0)?),
            (Kind::Delete, from.share("deleteproportion", 0.0)?),
        ];
        let whole: f64 = shares.iter().map(|(_, share)| share).sum();
        if whole <= 0.0 {
            return Err(Error::Usage("all proportions are 0: there is nothing to do".to_owned()));
        }
        let shares = shares.into_iter().filter(|(_, share)| *share > 0.0);
        Ok(Self {
            name: name.to_owned(),
            record_count,
            operation_count: from.number("operationcount", 0)?,
            insert_start,
            insert_count,
            shares: shares.map(|(kind, share)| (kind, share / whole)).collect(),
            distribution: distribution(from)?,
            key: key_form(from)?,
            value: value_form(from)?,
            scan_lengths: lengths(
                from,
                "scanlengthdistribution",
                "uniform",
                "minscanlength",
                "maxscanlength",
                1000,
            )?,
            write_all_fields: from.flag("writeallfields", false)?,
            batch_records: from.number("batchsize", 1)?,
            durability: match from.text("durability").unwrap_or("sync") {
                "sync" => WriteDurability::Sync,
                "buffered" => WriteDurability::Buffered,
                other => return Err(wrong("durability", other, "sync or buffered")),
            },
            ttl_ms: from.number("ttlms", 0)?,
            seconds_max: from.number("maxexecutiontime", 0)?,
            rate: from.number("target", 0.0)?,
            thread_count: from.number("threadcount", 0)?,
            setup: Setup::of(from)?,
            properties: from.listed(),
        })
    }

    fn check(&self) -> Result<()> {
        let usage = |text: &str| Err(Error::Usage(text.to_owned()));
        if self.record_count == 0 {
            return usage("recordcount is 0: there must be at least one record");
        }
        if self.insert_start.checked_add(self.insert_count).is_none_or(|end| end > self.record_count) {
            return usage("insertstart and insertcount go beyond recordcount");
        }
        if self.insert_count == 0 {
            return usage("insertcount is 0: there must be at least one record");
        }
        if self.value.bytes_max() > 16 << 20 {
            return usage("values would be larger than 16 MiB");
        }
        if !(1..=BATCH_RECORDS_MAX).contains(&self.batch_records) {
            return Err(wrong("batchsize", &self.batch_records.to_string(), "1 to 1000"));
        }
        if self.batch_records > 1 && matches!(self.value, ValueForm::Fields { .. }) {
            return usage("batchsize is for plain values: give valuebytes, or a workload that has it");
        }
        if self.record_count > 1 << 48 {
            return usage("record numbers go up to 2^48");
        }
        if self.scan_lengths.max() == 0 || self.scan_lengths.max() > 100_000 {
            return usage("maxscanlength is 1 to 100000");
        }
        Ok(())
    }

    /// The share of a kind of operation.
    pub fn share(&self, kind: Kind) -> f64 {
        self.shares.iter().find(|share| share.0 == kind).map_or(0.0, |share| share.1)
    }

    /// A kind of operation, drawn by the shares.
    pub(crate) fn draw_kind(&self, random: &mut Random) -> Kind {
        let mut left = draw::unit(random);
        for (kind, share) in &self.shares {
            if left < *share {
                return *kind;
            }
            left -= share;
        }
        self.shares.last().map_or(Kind::Read, |(kind, _)| *kind)
    }
}

fn distribution(from: &Properties) -> Result<Distribution> {
    let ppm = |share: f64| (share * 1e6).round() as u32;
    let (data, operations) =
        (from.share("hotspotdatafraction", 0.2)?, from.share("hotspotopnfraction", 0.8)?);
    Ok(match from.text("requestdistribution").unwrap_or("uniform") {
        "uniform" => Distribution::Uniform,
        "zipfian" => Distribution::Zipfian,
        "latest" => Distribution::Latest,
        "exponential" => Distribution::Exponential,
        "sequential" => Distribution::Sequential,
        "hotspot" => Distribution::Hotspot { data_ppm: ppm(data), operations_ppm: ppm(operations) },
        other => {
            let known = "uniform, zipfian, latest, exponential, hotspot or sequential";
            return Err(wrong("requestdistribution", other, known));
        }
    })
}

fn key_form(from: &Properties) -> Result<KeyForm> {
    let most = from.number("keybytes", 0)?;
    let least = from.number("minkeybytes", most)?;
    if most > 0 {
        without(from, "keybytes", &["zeropadding", "insertorder"])?;
        for (name, bytes) in [("keybytes", most), ("minkeybytes", least)] {
            if !(16..=4096).contains(&bytes) {
                return Err(wrong(name, &bytes.to_string(), "16 to 4096"));
            }
        }
        in_order("minkeybytes", least as u64, "keybytes", most as u64)?;
        return Ok(KeyForm::Plain { least, most });
    }
    with(from, "keybytes", "minkeybytes")?;
    let zero_padding = from.number("zeropadding", 1)?;
    let hashed = match from.text("insertorder").unwrap_or("hashed") {
        "hashed" => true,
        "ordered" => false,
        other => return Err(wrong("insertorder", other, "hashed or ordered")),
    };
    Ok(KeyForm::Ycsb { hashed, zero_padding })
}

fn value_form(from: &Properties) -> Result<ValueForm> {
    let most = from.number("valuebytes", 0)?;
    let least = from.number("minvaluebytes", most)?;
    if most > 0 {
        let fields =
            ["fieldcount", "fieldnameprefix", "fieldlength", "minfieldlength", "fieldlengthdistribution"];
        without(from, "valuebytes", &fields)?;
        in_order("minvaluebytes", least, "valuebytes", most)?;
        let lengths = if least < most { Lengths::Uniform(least, most) } else { Lengths::Constant(most) };
        return Ok(ValueForm::Plain { lengths });
    }
    with(from, "valuebytes", "minvaluebytes")?;
    let count = from.number("fieldcount", 10)?;
    if !(1..=10_000).contains(&count) {
        return Err(wrong("fieldcount", &count.to_string(), "1 to 10000"));
    }
    Ok(ValueForm::Fields {
        count,
        prefix: from.text("fieldnameprefix").unwrap_or("field").to_owned(),
        lengths: lengths(from, "fieldlengthdistribution", "constant", "minfieldlength", "fieldlength", 100)?,
    })
}

fn lengths(
    from: &Properties,
    distribution: &str,
    default: &str,
    least: &str,
    most: &str,
    most_default: u64,
) -> Result<Lengths> {
    let (min, max) = (from.number(least, 1)?, from.number(most, most_default)?);
    let kind = from.text(distribution).unwrap_or(default);
    if kind != "constant" {
        in_order(least, min, most, max)?;
    }
    Ok(match kind {
        "constant" => Lengths::Constant(max),
        "uniform" => Lengths::Uniform(min, max),
        "zipfian" => Lengths::zipfian(min, max),
        other => return Err(wrong(distribution, other, "constant, uniform or zipfian")),
    })
}

/// A least value is none above the most.
fn in_order(least_name: &str, least: u64, most_name: &str, most: u64) -> Result<()> {
    if least <= most {
        return Ok(());
    }
    Err(Error::Usage(format!("{least_name} of {least} is above {most_name} of {most}")))
}

/// What would say nothing beside a property that is given is most likely meant.
fn without(from: &Properties, given: &str, others: &[&str]) -> Result<()> {
    let Some(other) = others.iter().find(|name| from.text(name).is_some()) else { return Ok(()) };
    Err(Error::Usage(format!("property {other} says nothing where {given} is given: leave one of them out")))
}

/// What says nothing without another property.
fn with(from: &Properties, needed: &str, given: &str) -> Result<()> {
    match from.text(given) {
        Some(_) => Err(Error::Usage(format!("property {given} needs {needed}"))),
        None => Ok(()),
    }
}

fn wrong(name: &str, value: &str, known: &str) -> Error {
    Error::Usage(format!("property {name}: {value:?} is not {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str, assignments: &[&str]) -> Result<Workload> {
        Workload::new(name, &[], &assignments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn the_core_workloads_are_those_of_the_book() {
        let shares = |name: &str| workload(name, &[]).unwrap().shares;
        assert_eq!(shares("a"), [(Kind::Read, 0.5), (Kind::Update, 0.5)]);
        assert_eq!(shares("b"), [(Kind::Read, 0.95), (Kind::Update, 0.05)]);
        assert_eq!(shares("c"), [(Kind::Read, 1.0)]);
        assert_eq!(shares("d"), [(Kind::Read, 0.95), (Kind::Insert, 0.05)]);
        assert_eq!(shares("e"), [(Kind::Insert, 0.05), (Kind::Scan, 0.95)]);
        assert_eq!(shares("f"), [(Kind::Read, 0.5), (Kind::ReadModifyWrite, 0.5)]);
        assert_eq!(workload("d", &[]).unwrap().distribution, Distribution::Latest);
        let core = workload("core", &[]).unwrap();
        assert_eq!(core.shares, [(Kind::Read, 0.95), (Kind::Update, 0.05)]);
        assert_eq!((core.distribution, core.record_count), (Distribution::Uniform, 1000));
        let e = workload("e", &[]).unwrap();
        assert_eq!((e.distribution, e.scan_lengths), (Distribution::Zipfian, Lengths::Uniform(1, 100)));
        let fields = ValueForm::Fields { count: 10, prefix: "field".into(), lengths: Lengths::Constant(100) };
        assert_eq!(e.value, fields);
        assert_eq!(e.key, KeyForm::Ycsb { hashed: true, zero_padding: 1 });
    }

    #[test]
    fn kinds_are_drawn_by_their_shares() {
        let workload = workload("e", &[]).unwrap();
        let mut random = Random::new(3);
        let scans = (0..100_000).filter(|_| workload.draw_kind(&mut random) == Kind::Scan).count();
        assert!((94_700..95_300).contains(&scans), "{scans}");
    }

    #[test]
    fn properties_make_other_workloads() {
        let wanted =
            workload("small", &["recordcount=5", "minvaluebytes=8", "durability=buffered", "target=1000"]);
        let small = wanted.unwrap();
        let key = KeyForm::Plain { least: 32, most: 32 };
        assert_eq!((small.record_count, small.insert_count, small.key), (5, 5, key));
        let drawn = workload("large", &["minkeybytes=16"]).unwrap();
        assert_eq!(drawn.key, KeyForm::Plain { least: 16, most: 256 });
        assert_eq!(small.value, ValueForm::Plain { lengths: Lengths::Uniform(8, 512) });
        assert_eq!((small.durability, small.rate), (WriteDurability::Buffered, 1000.0));
        assert_eq!(small.setup, Setup::default());
        let engine =
            workload("e", &["memorymib=64", "shards=2", "directio=false", "scanorder=keys"]).unwrap();
        let setup = Setup {
            memory_mib: Some(64),
            shards: Some(2),
            direct_io: Some(false),
            scan_order: Some(ScanOrder::Keys),
        };
        assert_eq!(engine.setup, setup);
        let ordered = workload("c", &["insertorder=ordered", "zeropadding=12"]).unwrap();
        assert_eq!(ordered.key, KeyForm::Ycsb { hashed: false, zero_padding: 12 });
        assert!(
            (workload("a", &["readproportion=1", "updateproportion=1"]).unwrap().share(Kind::Read) - 0.5)
                .abs()
                < 1e-9
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (name, assignment, said) in [
            ("z", "recordcount=1", "no workload"),
            ("a", "recordcount=0", "recordcount"),
            ("a", "requestdistribution=normal", "normal"),
            ("a", "insertorder=random", "insertorder"),
            ("a", "keybytes=8", "16 to 4096"),
            ("small", "minkeybytes=15", "16 to 4096"),
            ("small", "minkeybytes=33", "minkeybytes of 33 is above keybytes of 32"),
            ("a", "minkeybytes=20", "needs keybytes"),
            ("small", "insertorder=ordered", "says nothing where keybytes is given"),
            ("small", "minvaluebytes=513", "minvaluebytes of 513 is above valuebytes of 512"),
            ("a", "minvaluebytes=5", "needs valuebytes"),
            ("small", "fieldcount=5", "fieldcount says nothing where valuebytes is given"),
            ("a", "batchsize=2", "plain values"),
            ("small", "batchsize=0", "1 to 1000"),
            ("small", "batchsize=1001", "1 to 1000"),
            ("c", "readproportion=0", "nothing to do"),
            ("e", "maxscanlength=0", "minscanlength"),
            ("a", "fieldlength=100000000", "16 MiB"),
            ("a", "insertstart=18446744073709551615", "beyond recordcount"),
            ("a", "recordcount=281474976710657", "2^48"),
            ("a", "recordcont=1", "did you mean recordcount?"),
            ("a", "memorymib=0", "memorymib"),
            ("a", "shards=9999", "1 to 1024"),
            ("a", "directio=yes", "neither true nor false"),
            ("e", "scanorder=random", "placement or keys"),
        ] {
            let error = workload(name, &[assignment]).unwrap_err().to_string();
            assert!(error.contains(said), "{assignment}: {error}");
        }
    }
}
