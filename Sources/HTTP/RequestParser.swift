import CHTTPParser

/// Bytes in, one request at a time out; stops after each request so that the next stays with the caller.
final class RequestParser: MessageReader {
    enum Refusal: Equatable { case malformed, notOneHost, headersTooLarge, bodyTooLarge, busy }

    private let parser = MessageParser(HTTP_REQUEST)
    private let limits: HTTPLimits
    private let load: HTTPLoad
    /// Bytes of the body taken from the server's budget.
    private var reserved = 0
    private var target: [UInt8] = []
    private var head = HeaderPieces()
    private var body: [UInt8] = []
    private var isChunked = false
    private var syntax = RequestSyntax()
    private(set) var refusal: Refusal?
    private(set) var hasHeaders = false
    private(set) var isComplete = false
    private(set) var keepsAlive = false
    private(set) var isVersion11 = true
    /// The client waits for `100 Continue` before it sends a body.
    var expectsContinue = false

    init(limits: HTTPLimits, load: HTTPLoad) {
        self.limits = limits
        self.load = load
        parser.reader = self
    }

    deinit { load.bodyBytes -= reserved }

    /// Parses from `bytes`; returns how many it used. Look at `refusal` and `isComplete` after.
    func parse(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard !bytes.isEmpty, refusal == nil, !isComplete else { return 0 }
        let used = parser.execute(bytes)
        syntax.take(UnsafeRawBufferPointer(rebasing: bytes[..<min(used, bytes.count)]), isChunked: isChunked)
        if syntax.isBroken { refusal = .malformed }
        if isComplete { return min(used, bytes.count) }
        if parser.error == HPE_HEADER_OVERFLOW {
            refusal = refusal ?? .headersTooLarge
        } else if parser.error != HPE_OK {
            refusal = refusal ?? .malformed
        }
        return min(used, bytes.count)
    }

    /// The complete request; the parser is ready for the next.
    func takeRequest() -> HTTPRequest {
        let whole = Self.origin(String(decoding: target, as: UTF8.self))
        let parts = whole.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let headers = zip(head.names, head.values).map {
            (name: String(decoding: $0, as: UTF8.self), value: String(decoding: Self.trimmed($1), as: UTF8.self))
        }
        let request = HTTPRequest(
            method: parser.method, path: parts.first.map(String.init) ?? "",
            query: parts.count > 1 ? String(parts[1]) : "",
            headers: headers, body: body)
        reset()
        return request
    }

    /// A target as proxies are sent it (`http://host/path`) without scheme and host.
    private static func origin(_ target: String) -> Substring {
        guard target.prefix(7).lowercased() == "http://" else { return target[...] }
        return target.dropFirst(7).drop { $0 != "/" && $0 != "?" }
    }

    /// The body's share of the server's budget, which the caller gives back when the request is done.
    func takeReserved() -> Int {
        defer { reserved = 0 }
        return reserved
    }

    private func reset() {
        (target, head, body) = ([], HeaderPieces(), [])
        (isChunked, syntax) = (false, RequestSyntax())
        (hasHeaders, isComplete, expectsContinue) = (false, false, false)
        parser.pause(false)
    }

    func took(_ part: MessagePart, _ bytes: UnsafeRawBufferPointer) -> Bool {
        if part == .body {
            guard bytes.count <= limits.bodyBytes - body.count else { return refuse(.bodyTooLarge) }
            guard bytes.count <= limits.totalBodyBytes - load.bodyBytes else { return refuse(.busy) }
            load.bodyBytes += bytes.count
            reserved += bytes.count
            body.append(contentsOf: bytes)
            return true
        }
        head.take(part, bytes)
        guard head.byteCount <= limits.headerBytes else { return refuse(.headersTooLarge) }
        if part == .target { target.append(contentsOf: bytes) }
        return true
    }

    func tookHead() -> Bool {
        hasHeaders = true
        head.end()
        parser.refuseUpgrade()
        guard parser.version.major == 1 else { return refuse(.malformed) }
        isVersion11 = parser.version.minor >= 1
        keepsAlive = isVersion11 && parser.keepsAlive
        let hosts = head.names.count { Self.isName($0, "host") }
        guard hosts == 1 || (hosts == 0 && !isVersion11) else { return refuse(.notOneHost) }
        let codings = zip(head.names, head.values).filter { Self.isName($0.0, "transfer-encoding") }.map {
            Self.trimmed($0.1)
        }
        isChunked = !codings.isEmpty
        // What else a coding says is read in more than one way, and HTTP/1.0 has none.
        guard !isChunked || (isVersion11 && codings.count == 1 && Self.isName(Array(codings[0]), "chunked")) else {
            return refuse(.malformed)
        }
        if let length = parser.contentLength, length > UInt64(max(0, limits.bodyBytes)) {
            return refuse(.bodyTooLarge)
        }
        expectsContinue =
            isVersion11
            && zip(head.names, head.values).contains {
                Self.isName($0, "expect")
                    && String(decoding: Self.trimmed($1), as: UTF8.self).lowercased() == "100-continue"
            }
        return true
    }

    /// White space around a value is no part of it (RFC 9110, 5.5).
    private static func trimmed(_ value: [UInt8]) -> ArraySlice<UInt8> {
        func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
        guard let first = value.firstIndex(where: { !isSpace($0) }),
            let last = value.lastIndex(where: { !isSpace($0) })
        else { return [] }
        return value[first...last]
    }

    /// True for this word, given in lower case, in any case.
    private static func isName(_ name: [UInt8], _ word: StaticString) -> Bool {
        let wanted = UnsafeBufferPointer(start: word.utf8Start, count: word.utf8CodeUnitCount)
        return name.count == wanted.count
            && name.elementsEqual(wanted) { ((0x41...0x5A).contains($0) ? $0 | 0x20 : $0) == $1 }
    }

    func tookMessage() {
        isComplete = true
        expectsContinue = false
        parser.pause(true)
    }

    private func refuse(_ refusal: Refusal) -> Bool {
        self.refusal = refusal
        return false
    }
}
