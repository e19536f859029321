import CHTTPParser

/// Bytes in, the head and the body of one answer out.
final class ResponseParser {
    private let parser = UnsafeMutablePointer<http_parser>.allocate(capacity: 1)
    private let settings = UnsafeMutablePointer<http_parser_settings>.allocate(capacity: 1)
    private let headerLimit: Int
    private var names: [[UInt8]] = []
    private var values: [[UInt8]] = []
    private var headerBytes = 0
    private var lastWasValue = true
    private var isTooLong = false
    private(set) var status = 0
    private(set) var hasHead = false
    private(set) var isComplete = false
    private(set) var keepsAlive = false
    /// Body bytes since they were taken last.
    private(set) var body: [UInt8] = []

    init(headerLimit: Int) {
        self.headerLimit = headerLimit
        settings.initialize(to: http_parser_settings())
        parser.initialize(to: http_parser())
        http_parser_init(parser, HTTP_RESPONSE)
        parser.pointee.data = Unmanaged.passUnretained(self).toOpaque()
        settings.pointee.on_header_field = { ResponseParser.of($0)?.tookName($1, $2) ?? -1 }
        settings.pointee.on_header_value = { ResponseParser.of($0)?.tookValue($1, $2) ?? -1 }
        settings.pointee.on_body = { ResponseParser.of($0)?.tookBody($1, $2) ?? -1 }
        settings.pointee.on_headers_complete = { ResponseParser.of($0)?.tookHead() ?? -1 }
        settings.pointee.on_message_complete = { ResponseParser.of($0)?.tookMessage() ?? -1 }
    }

    deinit {
        parser.deallocate()
        settings.deallocate()
    }

    /// Parses `bytes`; no bytes mean that the server closed. Returns what is wrong with them.
    func parse(_ bytes: UnsafeRawBufferPointer) -> String? {
        let used = http_parser_execute(
            parser, settings, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
        if isTooLong { return "its headers exceed \(headerLimit) bytes" }
        if isComplete { return used < bytes.count ? "bytes follow its end" : nil }
        guard parser.pointee.http_errno == HPE_OK.rawValue else {
            return "it is not HTTP/1.1: "
                + String(cString: http_errno_description(http_errno(rawValue: parser.pointee.http_errno)))
        }
        return nil
    }

    var headers: [(name: String, value: String)] {
        zip(names, values).map { (String(decoding: $0, as: UTF8.self), String(decoding: $1, as: UTF8.self)) }
    }

    func takeBody() -> [UInt8] {
        defer { body = [] }
        return body
    }

    private static func of(_ parser: UnsafeMutablePointer<http_parser>?) -> ResponseParser? {
        guard let data = parser?.pointee.data else { return nil }
        return Unmanaged<ResponseParser>.fromOpaque(data).takeUnretainedValue()
    }

    private func fits(_ count: Int) -> Bool {
        headerBytes += count
        isTooLong = isTooLong || headerBytes > headerLimit
        return !isTooLong
    }

    private func tookName(_ start: UnsafePointer<CChar>?, _ count: Int) -> Int32 {
        guard fits(count + 4) else { return -1 }
        // trailers are counted and dropped
        guard !hasHead else { return 0 }
        if lastWasValue {
            names.append([])
            values.append([])
        }
        lastWasValue = false
        names[names.count - 1].append(contentsOf: UnsafeRawBufferPointer(start: start, count: count))
        return 0
    }

    private func tookValue(_ start: UnsafePointer<CChar>?, _ count: Int) -> Int32 {
        guard fits(count) else { return -1 }
        lastWasValue = true
        if !hasHead, !values.isEmpty {
            values[values.count - 1].append(contentsOf: UnsafeRawBufferPointer(start: start, count: count))
        }
        return 0
    }

    private func tookHead() -> Int32 {
        let status = Int(parser.pointee.status_code)
        guard status >= 200 else { return 0 }
        self.status = status
        hasHead = true
        return 0
    }

    private func tookBody(_ start: UnsafePointer<CChar>?, _ count: Int) -> Int32 {
        body.append(contentsOf: UnsafeRawBufferPointer(start: start, count: count))
        return 0
    }

    private func tookMessage() -> Int32 {
        guard hasHead else {
            // an interim answer, such as 100 Continue; the real one follows
            (names, values, lastWasValue) = ([], [], true)
            return 0
        }
        isComplete = true
        keepsAlive = http_should_keep_alive(parser) != 0
        http_parser_pause(parser, 1)
        return 0
    }
}
