import CHTTPParser

/// Bytes in, one request at a time out; stops after each request so that the next stays with the caller.
final class RequestParser {
    enum Refusal: Equatable { case malformed, notOneHost, headersTooLarge, bodyTooLarge, busy }

    private let parser = UnsafeMutablePointer<http_parser>.allocate(capacity: 1)
    private let settings = UnsafeMutablePointer<http_parser_settings>.allocate(capacity: 1)
    private let limits: HTTPLimits
    private let load: HTTPLoad
    /// Bytes of the body taken from the server's budget.
    private var reserved = 0
    private var target: [UInt8] = []
    private var names: [[UInt8]] = []
    private var values: [[UInt8]] = []
    private var body: [UInt8] = []
    private var headerBytes = 0
    private var lastWasValue = true
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
        settings.initialize(to: http_parser_settings())
        parser.initialize(to: http_parser())
        http_parser_init(parser, HTTP_REQUEST)
        parser.pointee.data = Unmanaged.passUnretained(self).toOpaque()
        settings.pointee.on_url = { RequestParser.of($0)?.took(.target, $1, $2) ?? -1 }
        settings.pointee.on_header_field = { RequestParser.of($0)?.took(.name, $1, $2) ?? -1 }
        settings.pointee.on_header_value = { RequestParser.of($0)?.took(.value, $1, $2) ?? -1 }
        settings.pointee.on_body = { RequestParser.of($0)?.took(.body, $1, $2) ?? -1 }
        settings.pointee.on_headers_complete = { RequestParser.of($0)?.tookHeaders() ?? -1 }
        settings.pointee.on_message_complete = { RequestParser.of($0)?.tookMessage() ?? -1 }
    }

    deinit {
        load.bodyBytes -= reserved
        parser.deallocate()
        settings.deallocate()
    }

    /// Parses from `bytes`; returns how many it used. Look at `refusal` and `isComplete` after.
    func parse(_ bytes: UnsafeRawBufferPointer) -> Int {
        guard let base = bytes.baseAddress, !bytes.isEmpty, refusal == nil, !isComplete else { return 0 }
        let used = http_parser_execute(
            parser, settings, base.assumingMemoryBound(to: CChar.self), bytes.count)
        syntax.take(UnsafeRawBufferPointer(rebasing: bytes[..<min(used, bytes.count)]), isChunked: isChunked)
        if syntax.isBroken { refusal = .malformed }
        if isComplete { return min(used, bytes.count) }
        if parser.pointee.http_errno == HPE_HEADER_OVERFLOW.rawValue {
            refusal = refusal ?? .headersTooLarge
        } else if parser.pointee.http_errno != HPE_OK.rawValue {
            refusal = refusal ?? .malformed
        }
        return min(used, bytes.count)
    }

    /// The complete request; the parser is ready for the next.
    func takeRequest() -> HTTPRequest {
        let method = String(cString: http_method_str(http_method(rawValue: UInt32(parser.pointee.method))))
        let whole = Self.origin(String(decoding: target, as: UTF8.self))
        let parts = whole.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        let headers = zip(names, values).map {
            (name: String(decoding: $0, as: UTF8.self), value: String(decoding: Self.trimmed($1), as: UTF8.self))
        }
        let request = HTTPRequest(
            method: method, path: parts.first.map(String.init) ?? "", query: parts.count > 1 ? String(parts[1]) : "",
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
        (target, names, values, body) = ([], [], [], [])
        (isChunked, syntax) = (false, RequestSyntax())
        (headerBytes, lastWasValue, hasHeaders, isComplete, expectsContinue) = (0, true, false, false, false)
        http_parser_pause(parser, 0)
    }

    private enum Part { case target, name, value, body }

    private static func of(_ parser: UnsafeMutablePointer<http_parser>?) -> RequestParser? {
        guard let data = parser?.pointee.data else { return nil }
        return Unmanaged<RequestParser>.fromOpaque(data).takeUnretainedValue()
    }

    private func took(_ part: Part, _ start: UnsafePointer<CChar>?, _ count: Int) -> Int32 {
        let bytes = UnsafeRawBufferPointer(start: start, count: count)
        if part == .body {
            guard count <= limits.bodyBytes - body.count else { return refuse(.bodyTooLarge) }
            guard count <= limits.totalBodyBytes - load.bodyBytes else { return refuse(.busy) }
            load.bodyBytes += count
            reserved += count
            body.append(contentsOf: bytes)
            return 0
        }
        headerBytes += count
        if part == .name, lastWasValue { headerBytes += 4 }
        guard headerBytes <= limits.headerBytes else { return refuse(.headersTooLarge) }
        switch part {
        case .target: target.append(contentsOf: bytes)
        case .name: tookName(bytes)
        default:
            lastWasValue = true
            if !hasHeaders, !values.isEmpty { values[values.count - 1].append(contentsOf: bytes) }
        }
        return 0
    }

    /// Trailers, which come after the headers are complete, are counted and dropped.
    private func tookName(_ bytes: UnsafeRawBufferPointer) {
        defer { lastWasValue = false }
        guard !hasHeaders else { return }
        if lastWasValue {
            names.append([])
            values.append([])
        }
        names[names.count - 1].append(contentsOf: bytes)
    }

    private func tookHeaders() -> Int32 {
        hasHeaders = true
        lastWasValue = true
        parser.pointee.upgrade = 0
        guard parser.pointee.http_major == 1 else { return refuse(.malformed) }
        isVersion11 = parser.pointee.http_major == 1 && parser.pointee.http_minor >= 1
        keepsAlive = isVersion11 && http_should_keep_alive(parser) != 0
        let hosts = names.count { Self.isName($0, "host") }
        guard hosts == 1 || (hosts == 0 && !isVersion11) else { return refuse(.notOneHost) }
        let codings = zip(names, values).filter { Self.isName($0.0, "transfer-encoding") }.map { Self.trimmed($0.1) }
        isChunked = !codings.isEmpty
        // What else a coding says is read in more than one way, and HTTP/1.0 has none.
        guard !isChunked || (isVersion11 && codings.count == 1 && Self.isName(Array(codings[0]), "chunked")) else {
            return refuse(.malformed)
        }
        let length = parser.pointee.content_length
        if length != UInt64.max, length > UInt64(max(0, limits.bodyBytes)) { return refuse(.bodyTooLarge) }
        expectsContinue =
            isVersion11
            && zip(names, values).contains {
                Self.isName($0, "expect")
                    && String(decoding: Self.trimmed($1), as: UTF8.self).lowercased() == "100-continue"
            }
        return 0
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

    private func tookMessage() -> Int32 {
        isComplete = true
        expectsContinue = false
        http_parser_pause(parser, 1)
        return 0
    }

    private func refuse(_ refusal: Refusal) -> Int32 {
        self.refusal = refusal
        return -1
    }
}
