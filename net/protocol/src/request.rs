//! Requests: what a client may ask.
//!
//! Decoding is strict: unknown flags and reserved bytes that are not zero are refused, so that a
//! later version can give them a meaning. Sizes of keys, values and batches are not judged here
//! (beyond what the length fields can say): the limits are the server's, told in HELLO.

use crate::entries::{Keys, namespace_name};
use crate::error::ProtocolError;
use crate::header::{Header, Opcode, request_flags, write_extended, write_frame};
use crate::heads::{
    BodyReader, BytesHead, DeleteHead, Head, HelloHead, KeyHead, MultiGetHead, NamespaceDropHead,
    NamespaceListHead, NamespaceOptionsHead, PutHead, ServerInfoHead, length, reserved_is_zero,
};
use crate::list::List;
use crate::scan::Scan;
use crate::trace::TraceParent;
use crate::types::Condition;
use crate::write::{Batch, Put, Update, Write, delete_body, put_body, put_condition, take_condition};
use crate::{CLIENT_NAME_BYTES_MAX, NAMESPACE_NAME_BYTES_MAX, PING_BYTES_MAX};

const ANY_CORE: u16 = 0xFFFF;

/// HELLO: opens the session. The first frame of a connection; nothing follows until its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The core that shall own the connection; `None` = any.
    pub wanted_core: Option<u16>,
    /// The features that the client knows.
    pub features: u64,
    /// Who is calling, for the server's logs; at most [`CLIENT_NAME_BYTES_MAX`] bytes.
    pub client_name: &'a str,
}

/// GET and STAT: one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRequest<'a> {
    /// In which namespace.
    pub namespace: u32,
    /// The key.
    pub key: &'a [u8],
}

impl<'a> KeyRequest<'a> {
    /// A GET that [`Request::decode`] would take, without the way through every other request. `None`
    /// for anything else, a GET with something wrong, or with an extended header, included.
    #[inline]
    pub fn decode_get(header: &Header, body: &'a [u8]) -> Option<Self> {
        if header.opcode != Opcode::Get.to_u8() || header.flags != 0 || header.is_extended() {
            return None;
        }
        let mut body = BodyReader::new(body);
        let request = Self::take(&mut body).ok()?;
        body.end().ok()?;
        Some(request)
    }
}

/// MULTI_GET: several keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MultiGet<'a> {
    /// In which namespace.
    pub namespace: u32,
    /// The keys.
    pub keys: List<'a, Keys>,
}

/// NAMESPACE_CREATE and NAMESPACE_SET.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceOptions<'a> {
    /// Its name: 1 to 64 of `A-Z a-z 0-9 _ . -`.
    pub name: &'a str,
    /// How long records live that say nothing else, in milliseconds; 0 = for ever.
    pub default_ttl_ms: u64,
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Request<'a> {
    /// Opens the session.
    Hello(Hello<'a>),
    /// Reads one key.
    Get(KeyRequest<'a>),
    /// Reads several keys.
    MultiGet(MultiGet<'a>),
    /// Writes a value.
    Put(Put<'a>),
    /// Removes a record.
    Delete(Write<'a>),
    /// Writes a value if the condition holds.
    PutIf(Put<'a>, Condition),
    /// Removes a record if the condition holds.
    DeleteIf(Write<'a>, Condition),
    /// Changes a record.
    Update(Update<'a>),
    /// Several puts and deletes.
    Batch(Batch<'a>),
    /// One page of a scan.
    Scan(Scan<'a>),
    /// Version, expiry and size.
    Stat(KeyRequest<'a>),
    /// Creates a namespace.
    NamespaceCreate(NamespaceOptions<'a>),
    /// Lists the namespaces.
    NamespaceList,
    /// Drops the namespace of this name.
    NamespaceDrop(&'a str),
    /// Changes the namespace's default TTL.
    NamespaceSet(NamespaceOptions<'a>),
    /// What the server says about itself.
    ServerInfo {
        /// Which part: a [`crate::Section`]'s number.
        section: u8,
    },
    /// Echoes these bytes, at most [`PING_BYTES_MAX`].
    Ping(&'a [u8]),
}

impl<'a> Request<'a> {
    /// The request in a frame, borrowed from its body.
    ///
    /// # Errors
    /// [`ProtocolError`]: answer its code, `not applied`; the connection can go on.
    pub fn decode(header: &Header, body: &'a [u8]) -> Result<Self, ProtocolError> {
        request_flags(header)?;
        let opcode = Opcode::from_u8(header.opcode).ok_or(ProtocolError::UnknownOpcode(header.opcode))?;
        let mut body = BodyReader::new(body);
        let from = &mut body;
        let request = match opcode {
            Opcode::Hello => Self::Hello(Hello::take(from)?),
            Opcode::Get => Self::Get(KeyRequest::take(from)?),
            Opcode::MultiGet => {
                let head = from.head::<MultiGetHead>()?;
                let keys = List::take(from, head.count.to_native())?;
                Self::MultiGet(MultiGet { namespace: head.namespace.to_native(), keys })
            }
            Opcode::Put => return Put::decode(header, from.rest()).map(Self::Put),
            Opcode::Delete => Self::Delete(delete_body(from.head()?, from)?),
            Opcode::PutIf => {
                let (head, condition) = (from.head::<PutHead>()?, take_condition(from)?);
                Self::PutIf(put_body(head, from)?, condition)
            }
            Opcode::DeleteIf => {
                let (head, condition) = (from.head::<DeleteHead>()?, take_condition(from)?);
                Self::DeleteIf(delete_body(head, from)?, condition)
            }
            Opcode::Update => Self::Update(Update::take(from)?),
            Opcode::Batch => Self::Batch(Batch::take(from)?),
            Opcode::Scan => Self::Scan(Scan::take(from)?),
            Opcode::Stat => Self::Stat(KeyRequest::take(from)?),
            Opcode::NamespaceCreate => Self::NamespaceCreate(NamespaceOptions::take(from)?),
            Opcode::NamespaceList => {
                reserved_is_zero(&from.head::<NamespaceListHead>()?.reserved)?;
                Self::NamespaceList
            }
            Opcode::NamespaceDrop => {
                let head = from.head::<NamespaceDropHead>()?;
                reserved_is_zero(&head.reserved)?;
                Self::NamespaceDrop(namespace_name(from.short(head.name_len)?)?)
            }
            Opcode::NamespaceSet => Self::NamespaceSet(NamespaceOptions::take(from)?),
            Opcode::ServerInfo => {
                let head = from.head::<ServerInfoHead>()?;
                reserved_is_zero(&head.reserved)?;
                Self::ServerInfo { section: head.section }
            }
            Opcode::Ping => {
                let head = from.head::<BytesHead>()?;
                reserved_is_zero(&head.reserved)?;
                let bytes = from.long(head.bytes_len)?;
                length::<u32>("ping", bytes, PING_BYTES_MAX)?;
                Self::Ping(bytes)
            }
        };
        body.end()?;
        Ok(request)
    }

    /// Its opcode.
    pub const fn opcode(&self) -> Opcode {
        match self {
            Self::Hello(_) => Opcode::Hello,
            Self::Get(_) => Opcode::Get,
            Self::MultiGet(_) => Opcode::MultiGet,
            Self::Put(_) => Opcode::Put,
            Self::Delete(_) => Opcode::Delete,
            Self::PutIf(..) => Opcode::PutIf,
            Self::DeleteIf(..) => Opcode::DeleteIf,
            Self::Update(_) => Opcode::Update,
            Self::Batch(_) => Opcode::Batch,
            Self::Scan(_) => Opcode::Scan,
            Self::Stat(_) => Opcode::Stat,
            Self::NamespaceCreate(_) => Opcode::NamespaceCreate,
            Self::NamespaceList => Opcode::NamespaceList,
            Self::NamespaceDrop(_) => Opcode::NamespaceDrop,
            Self::NamespaceSet(_) => Opcode::NamespaceSet,
            Self::ServerInfo { .. } => Opcode::ServerInfo,
            Self::Ping(_) => Opcode::Ping,
        }
    }

    /// Appends the frame to `out`. `deadline_us` is the time that remains, in microseconds; 0 = no
    /// deadline.
    ///
    /// # Errors
    /// [`ProtocolError::TooLarge`] or [`ProtocolError::BadBody`] when a field does not fit; `out`
    /// is unchanged.
    pub fn encode(
        &self,
        request_id: u64,
        epoch: u64,
        deadline_us: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let fields = (request_id, epoch, deadline_us);
        write_frame(out, (self.opcode().to_u8(), 0), fields, |out| self.put(out))
    }

    /// As [`Request::encode`] for a request that belongs to a trace.
    ///
    /// # Errors
    /// As [`Request::encode`].
    pub fn encode_traced(
        &self,
        (request_id, epoch, deadline_us): (u64, u64, u32),
        trace: &TraceParent,
        out: &mut Vec<u8>,
    ) -> Result<(), ProtocolError> {
        let (kind, fields) = ((self.opcode().to_u8(), 0), (request_id, epoch, deadline_us));
        write_extended(out, kind, fields, &trace.to_extension(), |out| self.put(out))
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        match self {
            Self::Hello(hello) => hello.put(out)?,
            Self::Get(request) | Self::Stat(request) => request.put(out)?,
            Self::MultiGet(request) => {
                MultiGetHead { namespace: request.namespace.into(), count: request.keys.len().into() }
                    .put(out);
                out.extend_from_slice(request.keys.as_bytes());
            }
            Self::Put(put) => {
                put.head()?.put(out);
                put.raw(out);
            }
            Self::PutIf(put, condition) => {
                put.head()?.put(out);
                put_condition(*condition, out);
                put.raw(out);
            }
            Self::Delete(write) => {
                write.head()?.put(out);
                out.extend_from_slice(write.key);
            }
            Self::DeleteIf(write, condition) => {
                write.head()?.put(out);
                put_condition(*condition, out);
                out.extend_from_slice(write.key);
            }
            Self::Update(update) => update.put(out)?,
            Self::Batch(batch) => batch.put(out),
            Self::Scan(scan) => scan.put(out)?,
            Self::NamespaceCreate(options) | Self::NamespaceSet(options) => options.put(out)?,
            Self::NamespaceList => NamespaceListHead { reserved: [0; 8] }.put(out),
            Self::NamespaceDrop(name) => {
                let name_len = name_length(name)?;
                NamespaceDropHead { name_len: name_len.into(), reserved: [0; 6] }.put(out);
                out.extend_from_slice(name.as_bytes());
            }
            Self::ServerInfo { section } => {
                ServerInfoHead { section: *section, reserved: [0; 7] }.put(out);
            }
            Self::Ping(bytes) => {
                let bytes_len: u32 = length("ping", bytes, PING_BYTES_MAX)?;
                BytesHead { bytes_len: bytes_len.into(), reserved: [0; 4] }.put(out);
                out.extend_from_slice(bytes);
            }
        }
        Ok(())
    }
}

impl<'a> Hello<'a> {
    fn take(from: &mut BodyReader<'a>) -> Result<Self, ProtocolError> {
        let head = from.head::<HelloHead>()?;
        reserved_is_zero(&head.reserved)?;
        let name = from.short(head.name_len)?;
        length::<u16>("client name", name, CLIENT_NAME_BYTES_MAX)?;
        let core = head.wanted_core.to_native();
        Ok(Self {
            wanted_core: (core != ANY_CORE).then_some(core),
            features: head.features.to_native(),
            client_name: std::str::from_utf8(name)
                .map_err(|_| ProtocolError::BadBody("the client name is not UTF-8"))?,
        })
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let name = self.client_name.as_bytes();
        let name_len: u16 = length("client name", name, CLIENT_NAME_BYTES_MAX)?;
        HelloHead {
            wanted_core: self.wanted_core.unwrap_or(ANY_CORE).into(),
            name_len: name_len.into(),
            reserved: [0; 4],
            features: self.features.into(),
        }
        .put(out);
        out.extend_from_slice(name);
        Ok(())
    }
}

impl<'a> KeyRequest<'a> {
    #[inline]
    fn take(from: &mut BodyReader<'a>) -> Result<Self, ProtocolError> {
        let head = from.head::<KeyHead>()?;
        reserved_is_zero(&head.reserved)?;
        Ok(Self { namespace: head.namespace.to_native(), key: from.short(head.key_len)? })
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let key_len: u16 = length("key", self.key, usize::from(u16::MAX))?;
        KeyHead { namespace: self.namespace.into(), key_len: key_len.into(), reserved: [0; 2] }.put(out);
        out.extend_from_slice(self.key);
        Ok(())
    }
}

impl<'a> NamespaceOptions<'a> {
    fn take(from: &mut BodyReader<'a>) -> Result<Self, ProtocolError> {
        let head = from.head::<NamespaceOptionsHead>()?;
        reserved_is_zero(&head.reserved)?;
        let name = namespace_name(from.short(head.name_len)?)?;
        Ok(Self { name, default_ttl_ms: head.default_ttl_ms.to_native() })
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        NamespaceOptionsHead {
            default_ttl_ms: self.default_ttl_ms.into(),
            name_len: name_length(self.name)?.into(),
            reserved: [0; 6],
        }
        .put(out);
        out.extend_from_slice(self.name.as_bytes());
        Ok(())
    }
}

fn name_length(name: &str) -> Result<u16, ProtocolError> {
    namespace_name(name.as_bytes())?;
    length("namespace name", name.as_bytes(), NAMESPACE_NAME_BYTES_MAX)
}
