//! What is refused, and why.

use super::{super::Refusal, inspect, inspect_within};

/// Inspects `stream` in one piece, byte by byte, and cut in two anywhere.
fn check(stream: &[u8], expected: Refusal) {
    let shown = String::from_utf8_lossy(&stream[..stream.len().min(120)]).into_owned();
    let whole = inspect(stream, &[]).refusal;
    assert_eq!(whole, Some(expected), "{shown:?}");

    let each = (1..stream.len()).collect::<Vec<_>>();
    assert_eq!(inspect(stream, &each).refusal, Some(expected), "byte by byte: {shown:?}");

    for cut in 1..stream.len().min(400) {
        assert_eq!(inspect(stream, &[cut]).refusal, Some(expected), "cut at {cut}: {shown:?}");
    }
}

/// Checks requests that differ in their request line.
fn check_lines(cases: &[(&str, Refusal)]) {
    for (line, expected) in cases {
        check(format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), *expected);
    }
}

/// Checks requests that differ in the fields behind `Host`.
fn check_fields(cases: &[(&str, Refusal)]) {
    for (fields, expected) in cases {
        check(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").as_bytes(), *expected);
    }
}

/// Checks chunked requests that differ in their bodies.
fn check_chunks(cases: &[(&str, Refusal)]) {
    for (body, expected) in cases {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(format!("{head}{body}").as_bytes(), *expected);
    }
}

#[test]
fn request_lines_that_are_not_three_words() {
    check_lines(&[
        ("GET", Refusal::RequestLine),
        ("GET /", Refusal::RequestLine),
        ("GET  / HTTP/1.1", Refusal::RequestLine),
        ("GET /  HTTP/1.1", Refusal::RequestLine),
        ("GET / HTTP/1.1 ", Refusal::RequestLine),
        ("GET / x HTTP/1.1", Refusal::RequestLine),
        ("GET\t/\tHTTP/1.1", Refusal::RequestLine),
        (" GET / HTTP/1.1", Refusal::RequestLine),
        ("\tGET / HTTP/1.1", Refusal::RequestLine),
        ("GET / ", Refusal::RequestLine),
        ("\r\n\r\nGET / HTTP/1.1", Refusal::RequestLine),
        ("G(T / HTTP/1.1", Refusal::Method),
        ("G\u{e9}T / HTTP/1.1", Refusal::Method),
        ("GET\t / HTTP/1.1", Refusal::Method),
        (":GET / HTTP/1.1", Refusal::Method),
        ("\0GET / HTTP/1.1", Refusal::Method),
        ("\u{16}\u{3}\u{1}\u{2}", Refusal::Method),
        ("REFUSED / HTTP/1.1", Refusal::ReservedMethod),
        ("CONNECT a:443 HTTP/1.1", Refusal::Connect),
        ("CONNECT / HTTP/1.1", Refusal::Connect),
    ]);
    check(format!("{} / HTTP/1.1\r\n\r\n", "M".repeat(65)).as_bytes(), Refusal::Method);
}

#[test]
fn versions_other_than_1_0_and_1_1() {
    check_lines(&[
        ("GET / HTTP/0.9", Refusal::Version),
        ("GET / HTTP/1.2", Refusal::Version),
        ("GET / HTTP/2.0", Refusal::Version),
        ("GET / HTTP/2", Refusal::Version),
        ("GET / HTTP/1.10", Refusal::Version),
        ("GET / HTTP/01.1", Refusal::Version),
        ("GET / http/1.1", Refusal::Version),
        ("GET / HTTP/1,1", Refusal::Version),
        ("GET / HTTP/1.1\t", Refusal::Version),
        ("GET / HTTPS/1.1", Refusal::Version),
        ("GET / ICY/1.1", Refusal::Version),
        ("GET / /1.1", Refusal::Version),
        ("PRI * HTTP/2.0", Refusal::Version),
    ]);
}

#[test]
fn targets_that_are_neither_a_path_nor_an_http_url() {
    check_lines(&[
        ("GET api HTTP/1.1", Refusal::TargetForm),
        ("GET a:80 HTTP/1.1", Refusal::TargetForm),
        ("GET ?q HTTP/1.1", Refusal::TargetForm),
        ("GET ../x HTTP/1.1", Refusal::TargetForm),
        ("GET \\x HTTP/1.1", Refusal::TargetForm),
        ("GET http:/a/ HTTP/1.1", Refusal::TargetForm),
        ("GET http:///x HTTP/1.1", Refusal::TargetForm),
        ("GET http:// HTTP/1.1", Refusal::TargetForm),
        ("GET ftp://a/ HTTP/1.1", Refusal::TargetForm),
        ("GET file:///etc HTTP/1.1", Refusal::TargetForm),
        ("GET ://a/ HTTP/1.1", Refusal::TargetForm),
        ("GET http://u@a/ HTTP/1.1", Refusal::TargetForm),
        ("GET http://a\\b/ HTTP/1.1", Refusal::TargetForm),
        ("GET http://a:99999/ HTTP/1.1", Refusal::TargetForm),
        ("GET * HTTP/1.1", Refusal::Asterisk),
        ("options * HTTP/1.1", Refusal::Asterisk),
        ("OPTIONS ** HTTP/1.1", Refusal::TargetForm),
    ]);
}

#[test]
fn targets_with_characters_that_must_be_encoded() {
    check_lines(&[
        ("GET /a#b HTTP/1.1", Refusal::TargetCharacter),
        ("GET /a\"b HTTP/1.1", Refusal::TargetCharacter),
        ("GET /<a> HTTP/1.1", Refusal::TargetCharacter),
        ("GET /a\\b HTTP/1.1", Refusal::TargetCharacter),
        ("GET /a^b HTTP/1.1", Refusal::TargetCharacter),
        ("GET /a`b HTTP/1.1", Refusal::TargetCharacter),
        ("GET /{a} HTTP/1.1", Refusal::TargetCharacter),
        ("GET /a\tb HTTP/1.1", Refusal::TargetCharacter),
        ("GET /a\0b HTTP/1.1", Refusal::TargetCharacter),
        ("GET /a\u{7f}b HTTP/1.1", Refusal::TargetCharacter),
        ("GET /\u{e9} HTTP/1.1", Refusal::TargetCharacter),
        ("GET /?q=\u{e9} HTTP/1.1", Refusal::TargetCharacter),
        ("GET /?q=#f HTTP/1.1", Refusal::TargetCharacter),
        ("GET /?q=\"a\" HTTP/1.1", Refusal::TargetCharacter),
        ("GET /?q=<a HTTP/1.1", Refusal::TargetCharacter),
        ("GET http://a/\u{1} HTTP/1.1", Refusal::TargetCharacter),
        ("GET http://a?q=> HTTP/1.1", Refusal::TargetCharacter),
    ]);
}

#[test]
fn urls_of_another_authority_than_host() {
    check_lines(&[
        ("GET http://b/ HTTP/1.1", Refusal::ForeignAuthority),
        ("GET http://a:80/ HTTP/1.1", Refusal::ForeignAuthority),
        ("GET https://a.b HTTP/1.1", Refusal::ForeignAuthority),
        ("GET http://b?a HTTP/1.0", Refusal::ForeignAuthority),
    ]);
}

#[test]
fn hosts_that_are_missing_repeated_or_odd() {
    for (fields, expected) in [
        ("", Refusal::HostMissing),
        ("X: a\r\n", Refusal::HostMissing),
        ("Host: a\r\nHost: a\r\n", Refusal::HostRepeated),
        ("Host: a\r\nHOST: b\r\n", Refusal::HostRepeated),
        ("Host:\r\n", Refusal::HostInvalid),
        ("Host: \r\n", Refusal::HostInvalid),
        ("Host: a b\r\n", Refusal::HostInvalid),
        ("Host: a,b\r\n", Refusal::HostInvalid),
        ("Host: a/b\r\n", Refusal::HostInvalid),
        ("Host: u@a\r\n", Refusal::HostInvalid),
        ("Host: a:\r\n", Refusal::HostInvalid),
        ("Host: :80\r\n", Refusal::HostInvalid),
        ("Host: a:b\r\n", Refusal::HostInvalid),
        ("Host: a:+80\r\n", Refusal::HostInvalid),
        ("Host: a:65536\r\n", Refusal::HostInvalid),
        ("Host: a:1:2\r\n", Refusal::HostInvalid),
        ("Host: [::1\r\n", Refusal::HostInvalid),
        ("Host: [::1]x\r\n", Refusal::HostInvalid),
        ("Host: [a.b]\r\n", Refusal::HostInvalid),
        ("Host: ::1\r\n", Refusal::HostInvalid),
        ("Host: a%41\r\n", Refusal::HostInvalid),
        ("Host: http://a\r\n", Refusal::HostInvalid),
    ] {
        check(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes(), expected);
    }
    check(b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", Refusal::HostRepeated);
    check(b"GET / HTTP/1.0\r\nHost: a/\r\n\r\n", Refusal::HostInvalid);
}

#[test]
fn lines_that_do_not_end_with_cr_lf() {
    for (stream, expected) in [
        ("GET / HTTP/1.1\n", Refusal::BareLf),
        ("GET / HTTP/1.1\nHost: a\n\n", Refusal::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Refusal::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Refusal::BareLf),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\n2\r\n\r\n", Refusal::BareLf),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareLf),
        ("\r\n\nGET / HTTP/1.1\r\n\r\n", Refusal::BareLf),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareCr),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Refusal::BareCr),
        ("GET / HTTP/1.1\rHost: a\r\n\r\n", Refusal::BareCr),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Refusal::BareCr),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n", Refusal::BareCr),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\r\n", Refusal::BareCr),
        ("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", Refusal::BareCr),
    ] {
        check(stream.as_bytes(), expected);
    }
}

#[test]
fn fields_that_others_may_read_differently() {
    check_fields(&[
        (" X: 1", Refusal::ObsoleteFold),
        ("X: 1\r\n 2", Refusal::ObsoleteFold),
        ("X: 1\r\n\t2", Refusal::ObsoleteFold),
        ("Transfer-Encoding:\r\n chunked", Refusal::EncodingUnknown),
        ("X", Refusal::FieldWithoutColon),
        ("X 1", Refusal::FieldWithoutColon),
        (": 1", Refusal::FieldName),
        ("X Y: 1", Refusal::FieldName),
        ("X\0: 1", Refusal::FieldName),
        ("X(): 1", Refusal::FieldName),
        ("X\u{e9}: 1", Refusal::FieldName),
        ("X\"Y: 1", Refusal::FieldName),
        ("X/Y: 1", Refusal::FieldName),
        ("\u{b}X: 1", Refusal::FieldName),
        ("X : 1", Refusal::FieldNameBlank),
        ("X\t: 1", Refusal::FieldNameBlank),
        ("Content-Length : 5", Refusal::FieldNameBlank),
        ("X_Y: 1", Refusal::FieldNameUnderscore),
        ("Content_Length: 5", Refusal::FieldNameUnderscore),
        ("_: 1", Refusal::FieldNameUnderscore),
        ("X: a\0b", Refusal::FieldValue),
        ("X: \u{1}", Refusal::FieldValue),
        ("X: a\u{b}b", Refusal::FieldValue),
        ("X: a\u{c}", Refusal::FieldValue),
        ("X: a\u{1b}[1m", Refusal::FieldValue),
        ("X: a\u{7f}", Refusal::FieldValue),
    ]);
}

#[test]
fn lengths_that_are_not_one_number() {
    check_fields(&[
        ("Content-Length: 5\r\nContent-Length: 5", Refusal::LengthRepeated),
        ("Content-Length: 5\r\ncontent-length: 6", Refusal::LengthRepeated),
        ("Content-Length: 0\r\nContent-Length: 0", Refusal::LengthRepeated),
        ("Content-Length:", Refusal::LengthInvalid),
        ("Content-Length: 5, 5", Refusal::LengthInvalid),
        ("Content-Length: 5,", Refusal::LengthInvalid),
        ("Content-Length: +5", Refusal::LengthInvalid),
        ("Content-Length: -5", Refusal::LengthInvalid),
        ("Content-Length: 5 5", Refusal::LengthInvalid),
        ("Content-Length: 0x5", Refusal::LengthInvalid),
        ("Content-Length: 5.0", Refusal::LengthInvalid),
        ("Content-Length: 1e3", Refusal::LengthInvalid),
        ("Content-Length: five", Refusal::LengthInvalid),
        ("Content-Length: \"5\"", Refusal::LengthInvalid),
        ("Content-Length: 5;", Refusal::LengthInvalid),
        ("Content-Length: \u{ff15}", Refusal::LengthInvalid),
        ("Content-Length: 9223372036854775808", Refusal::LengthOverflow),
        ("Content-Length: 18446744073709551616", Refusal::LengthOverflow),
        ("Content-Length: 99999999999999999999999999", Refusal::LengthOverflow),
    ]);
}

#[test]
fn transfer_encodings_other_than_chunked() {
    check_fields(&[
        ("Transfer-Encoding:", Refusal::EncodingUnknown),
        ("Transfer-Encoding: gzip", Refusal::EncodingUnknown),
        ("Transfer-Encoding: gzip, chunked", Refusal::EncodingUnknown),
        ("Transfer-Encoding: chunked, chunked", Refusal::EncodingUnknown),
        ("Transfer-Encoding: chunked, identity", Refusal::EncodingUnknown),
        ("Transfer-Encoding: identity", Refusal::EncodingUnknown),
        ("Transfer-Encoding: xchunked", Refusal::EncodingUnknown),
        ("Transfer-Encoding: chunked;q=1", Refusal::EncodingUnknown),
        ("Transfer-Encoding: ,chunked", Refusal::EncodingUnknown),
        ("Transfer-Encoding: chunked,", Refusal::EncodingUnknown),
        ("Transfer-Encoding: \"chunked\"", Refusal::EncodingUnknown),
        ("Transfer-Encoding: \u{b}chunked", Refusal::FieldValue),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Refusal::EncodingRepeated),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", Refusal::EncodingUnknown),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", Refusal::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", Refusal::LengthAndEncoding),
        ("Transfer-Encoding: CHUNKED\r\nCONTENT-LENGTH: 0", Refusal::LengthAndEncoding),
    ]);
    check(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::EncodingInHttp10);
    check(b"POST / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n", Refusal::EncodingInHttp10);
}

#[test]
fn chunks_with_odd_sizes_and_ends() {
    check_chunks(&[
        ("\r\n", Refusal::ChunkSize),
        ("\n", Refusal::ChunkSize),
        (" 5\r\nhello\r\n", Refusal::ChunkSize),
        ("5 \r\nhello\r\n", Refusal::ChunkExtension),
        ("5\t\r\nhello\r\n", Refusal::ChunkExtension),
        ("-5\r\nhello\r\n", Refusal::ChunkSize),
        ("+5\r\nhello\r\n", Refusal::ChunkSize),
        ("0x5\r\nhello\r\n", Refusal::ChunkSize),
        ("5h\r\nhello\r\n", Refusal::ChunkSize),
        ("g\r\n", Refusal::ChunkSize),
        ("5_0\r\n", Refusal::ChunkSize),
        (";a\r\n", Refusal::ChunkSize),
        ("00000000000000005\r\nhello\r\n", Refusal::ChunkSize),
        ("10000000000000000\r\n", Refusal::ChunkSize),
        ("5\nhello\r\n", Refusal::BareLf),
        ("5\rhello\r\n", Refusal::BareCr),
        ("5\r\r\nhello\r\n", Refusal::BareCr),
        ("5\r\nhello\n", Refusal::ChunkEnd),
        ("5\r\nhello0\r\n\r\n", Refusal::ChunkEnd),
        ("5\r\nhello\rx", Refusal::ChunkEnd),
        ("5\r\nhello!\r\n", Refusal::ChunkEnd),
        ("5\r\nhello\r\n\r\n", Refusal::ChunkSize),
        ("5\r\nhello\r\n0\n\r\n", Refusal::BareLf),
        ("0\r\n\n", Refusal::BareLf),
        ("0\r\n\r\r\n", Refusal::BareCr),
    ]);
}

#[test]
fn chunk_extensions_with_odd_characters() {
    check_chunks(&[
        ("5;a\nhello\r\n", Refusal::BareLf),
        ("5;a=\"\n\"\r\nhello\r\n", Refusal::BareLf),
        ("5;\nGET / HTTP/1.1\r\n", Refusal::BareLf),
        ("5;a\rb\r\nhello\r\n", Refusal::BareCr),
        ("5;a=\0\r\nhello\r\n", Refusal::ChunkExtension),
        ("5;a=\u{7f}\r\nhello\r\n", Refusal::ChunkExtension),
        ("5;\u{e9}\r\nhello\r\n", Refusal::ChunkExtension),
        ("5 ;a\r\nhello\r\n", Refusal::ChunkExtension),
        ("5;a \r\nhello\r\n", Refusal::ChunkExtension),
        ("5;\r\nhello\r\n", Refusal::ChunkExtension),
        ("5;a=\"b\r\nhello\r\n", Refusal::ChunkExtension),
        ("5;a=\"b\\\"\r\nhello\r\n", Refusal::ChunkExtension),
        ("0;a\n\r\n", Refusal::BareLf),
    ]);
    let long = format!("5;{}\r\nhello\r\n", "a".repeat(300));
    check_chunks(&[(&long, Refusal::ChunkExtensionTooLong)]);
    let many = format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(41);
    check_chunks(&[(&many, Refusal::ChunkExtensionTooLong)]);
    check_chunks(&[(&"0".repeat(1000), Refusal::ChunkExtensionTooLong)]);
}

#[test]
fn trailer_fields_that_change_the_message() {
    check_chunks(&[
        ("0\r\nContent-Length: 5\r\n\r\n", Refusal::TrailerForbidden),
        ("0\r\ntransfer-encoding: chunked\r\n\r\n", Refusal::TrailerForbidden),
        ("0\r\nHOST: b\r\n\r\n", Refusal::TrailerForbidden),
        ("0\r\nAuthorization: x\r\n\r\n", Refusal::TrailerForbidden),
        ("0\r\nX-Forwarded-For: x\r\n\r\n", Refusal::TrailerForbidden),
        ("0\r\nX-Ok: 1\r\nX-Api-Key: x\r\n\r\n", Refusal::TrailerForbidden),
        ("0\r\nX_Y: 1\r\n\r\n", Refusal::FieldNameUnderscore),
        ("0\r\nX : 1\r\n\r\n", Refusal::FieldNameBlank),
        ("0\r\nX: 1\r\n 2\r\n\r\n", Refusal::ObsoleteFold),
        ("0\r\nX: 1\n\r\n", Refusal::BareLf),
        ("0\r\nX: \0\r\n\r\n", Refusal::FieldValue),
        ("0\r\nGET / HTTP/1.1:\r\n\r\n", Refusal::FieldName),
        ("0\r\nGET /\r\n\r\n", Refusal::FieldWithoutColon),
    ]);
    let many = format!("0\r\n{}\r\n", "X: 1\r\n".repeat(101));
    check_chunks(&[(&many, Refusal::TrailersTooLarge)]);
    let large = format!("0\r\nX: {}", "1".repeat(9000));
    check_chunks(&[(&large, Refusal::TrailersTooLarge)]);
    let two = format!("0\r\nX: {0}\r\nY: {0}\r\n\r\n", "1".repeat(4500));
    check_chunks(&[(&two, Refusal::TrailersTooLarge)]);
}

#[test]
fn heads_that_are_too_large() {
    check(format!("GET /{} HTTP/1.1\r\n", "a".repeat(8 * 1024)).as_bytes(), Refusal::TargetTooLong);
    check(format!("GET /{}", "a".repeat(9 * 1024)).as_bytes(), Refusal::TargetTooLong);
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(100));
    check(many.as_bytes(), Refusal::TooManyFields);
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "1".repeat(33 * 1024));
    check(large.as_bytes(), Refusal::HeadTooLarge);
}

#[test]
fn a_head_may_be_as_large_as_the_limit_and_no_larger() {
    let stream = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    let exact = inspect_within(stream.len(), stream, &[]);
    let less = inspect_within(stream.len() - 1, stream, &[]);
    let less_in_pieces = inspect_within(stream.len() - 1, stream, &[stream.len() - 1]);

    assert_eq!(exact.refusal, None);
    assert_eq!(less.refusal, Some(Refusal::HeadTooLarge));
    assert_eq!(less_in_pieces.refusal, Some(Refusal::HeadTooLarge));
}

#[test]
fn every_refusal_is_a_sentence_and_a_client_error() {
    for (refusal, status) in [
        (Refusal::LengthAndEncoding, 400),
        (Refusal::HeadTimeout, 408),
        (Refusal::TargetTooLong, 414),
        (Refusal::HeadTooLarge, 431),
        (Refusal::TooManyFields, 431),
        (Refusal::TrailersTooLarge, 431),
    ] {
        let text = refusal.to_string();
        assert_eq!(refusal.status(), status, "{refusal:?}");
        assert!(text.starts_with("The ") && text.ends_with('.'), "{text}");
    }
}
