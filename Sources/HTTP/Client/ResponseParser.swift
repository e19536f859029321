import CHTTPParser

/// Bytes in, the head and the body of one answer out.
final class ResponseParser: MessageReader {
    private let parser = MessageParser(HTTP_RESPONSE)
    private let headerLimit: Int
    private var head = HeaderPieces()
    private(set) var status = 0
    private(set) var hasHead = false
    private(set) var isComplete = false
    private(set) var keepsAlive = false
    /// Body bytes since they were taken last.
    private(set) var body: [UInt8] = []

    init(headerLimit: Int) {
        self.headerLimit = headerLimit
        parser.reader = self
    }

    /// Parses `bytes`; no bytes mean that the server closed. Returns what is wrong with them.
    func parse(_ bytes: UnsafeRawBufferPointer) -> String? {
        let used = parser.execute(bytes)
        if isTooLong { return "its headers exceed \(headerLimit) bytes" }
        if isComplete { return used < bytes.count ? "bytes follow its end" : nil }
        return parser.error == HPE_OK ? nil : "it is not HTTP/1.1: \(parser.errorText)"
    }

    var headers: [(name: String, value: String)] {
        zip(head.names, head.values).map { (String(decoding: $0, as: UTF8.self), String(decoding: $1, as: UTF8.self)) }
    }

    func takeBody() -> [UInt8] {
        defer { body = [] }
        return body
    }

    private var isTooLong: Bool { head.byteCount > headerLimit }

    func took(_ part: MessagePart, _ bytes: UnsafeRawBufferPointer) -> Bool {
        if part == .body {
            body.append(contentsOf: bytes)
            return true
        }
        head.take(part, bytes)
        return !isTooLong
    }

    func tookHead() -> Bool {
        guard parser.status >= 200 else { return true }
        status = parser.status
        hasHead = true
        head.end()
        return true
    }

    func tookMessage() {
        guard hasHead else {
            // an interim answer, such as 100 Continue; the real one follows
            head.restart()
            return
        }
        isComplete = true
        keepsAlive = parser.keepsAlive
        parser.pause(true)
    }
}
