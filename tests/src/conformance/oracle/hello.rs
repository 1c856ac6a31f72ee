//! The first message of a TLS handshake with a server name of any spelling, which no TLS library would send.

/// A TLS 1.2 ClientHello that names `server`.
pub(super) fn hello(server: &[u8]) -> Vec<u8> {
    let name = [&[0][..], &sized16(server)].concat();
    let server_name = extension(0, &sized16(&name));
    let groups = extension(10, &sized16(&[0x00, 0x1D, 0x00, 0x17]));
    let formats = extension(11, &[1, 0]);
    let signatures = extension(13, &sized16(&[0x04, 0x03, 0x08, 0x04]));
    let extensions = [server_name, groups, formats, signatures].concat();
    let mut body = vec![0x03, 0x03];
    body.extend([0x5A; 32]);
    body.push(0);
    body.extend(sized16(&[0xC0, 0x2B, 0xC0, 0x2F]));
    body.extend([1, 0]);
    body.extend(sized16(&extensions));
    let length = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
    let handshake = [&[1][..], length.get(1..).unwrap_or_default(), &body].concat();
    [&[0x16, 0x03, 0x01][..], &sized16(&handshake)].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized16(content)].concat()
}

fn sized16(content: &[u8]) -> Vec<u8> {
    [&u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes()[..], content].concat()
}
