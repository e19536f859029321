import CHTTPParser

/// Parts of a message that come in pieces.
enum MessagePart { case target, name, value, body }

/// What happens to whoever reads messages; false stops the parser.
protocol MessageReader: AnyObject {
    /// A piece of a part.
    func took(_ part: MessagePart, _ bytes: UnsafeRawBufferPointer) -> Bool
    /// The head is complete.
    func tookHead() -> Bool
    /// The message is complete.
    func tookMessage()
}

/// http-parser as an object: its callbacks become calls of a reader. Confined to its connection's loop.
final class MessageParser {
    private let parser = UnsafeMutablePointer<http_parser>.allocate(capacity: 1)
    private let settings = UnsafeMutablePointer<http_parser_settings>.allocate(capacity: 1)
    /// Who owns the parser.
    weak var reader: (any MessageReader)?

    init(_ direction: http_parser_type) {
        settings.initialize(to: http_parser_settings())
        parser.initialize(to: http_parser())
        http_parser_init(parser, direction)
        parser.pointee.data = Unmanaged.passUnretained(self).toOpaque()
        settings.pointee.on_url = { MessageParser.took(.target, $0, $1, $2) }
        settings.pointee.on_header_field = { MessageParser.took(.name, $0, $1, $2) }
        settings.pointee.on_header_value = { MessageParser.took(.value, $0, $1, $2) }
        settings.pointee.on_body = { MessageParser.took(.body, $0, $1, $2) }
        settings.pointee.on_headers_complete = { MessageParser.of($0)?.reader?.tookHead() == true ? 0 : -1 }
        settings.pointee.on_message_complete = { parser in
            MessageParser.of(parser)?.reader?.tookMessage()
            return 0
        }
    }

    deinit {
        parser.deallocate()
        settings.deallocate()
    }

    /// Parses `bytes`; none mean that the peer closed. Returns how many were used.
    func execute(_ bytes: UnsafeRawBufferPointer) -> Int {
        http_parser_execute(parser, settings, bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count)
    }

    /// Stops behind the byte that is being parsed, or goes on.
    func pause(_ isPaused: Bool) { http_parser_pause(parser, isPaused ? 1 : 0) }

    /// Takes the message for one of HTTP, whatever it would change to.
    func refuseUpgrade() { parser.pointee.upgrade = 0 }

    /// What is wrong; HPE_OK when nothing is.
    var error: http_errno { http_errno(rawValue: parser.pointee.http_errno) }
    /// The same as a sentence.
    var errorText: String { String(cString: http_errno_description(error)) }
    /// Of HTTP: its number's parts.
    var version: (major: UInt16, minor: UInt16) { (parser.pointee.http_major, parser.pointee.http_minor) }
    /// The method's name.
    var method: String { String(cString: http_method_str(http_method(rawValue: UInt32(parser.pointee.method)))) }
    /// The status of an answer.
    var status: Int { Int(parser.pointee.status_code) }
    /// Bytes of the body as announced; nil when they are not.
    var contentLength: UInt64? { parser.pointee.content_length == .max ? nil : parser.pointee.content_length }
    /// True when the connection goes on behind this message.
    var keepsAlive: Bool { http_should_keep_alive(parser) != 0 }

    private static func of(_ parser: UnsafeMutablePointer<http_parser>?) -> MessageParser? {
        guard let data = parser?.pointee.data else { return nil }
        return Unmanaged<MessageParser>.fromOpaque(data).takeUnretainedValue()
    }

    private static func took(
        _ part: MessagePart, _ parser: UnsafeMutablePointer<http_parser>?, _ start: UnsafePointer<CChar>?, _ count: Int
    ) -> Int32 {
        of(parser)?.reader?.took(part, UnsafeRawBufferPointer(start: start, count: count)) == true ? 0 : -1
    }
}

/// Names and values of a message's head as they come, piece by piece. What comes behind the head, trailers, is counted
/// and dropped.
struct HeaderPieces {
    private(set) var names: [[UInt8]] = []
    private(set) var values: [[UInt8]] = []
    /// Bytes of the head's lines, their separators among them, and of trailers.
    private(set) var byteCount = 0
    private var lastWasValue = true
    private var isOver = false

    /// Takes a piece of the target, a name or a value.
    mutating func take(_ part: MessagePart, _ bytes: UnsafeRawBufferPointer) {
        byteCount += bytes.count
        switch part {
        case .name: takeName(bytes)
        case .value:
            lastWasValue = true
            if !isOver, !values.isEmpty { values[values.count - 1].append(contentsOf: bytes) }
        case .target, .body: break
        }
    }

    private mutating func takeName(_ bytes: UnsafeRawBufferPointer) {
        defer { lastWasValue = false }
        if lastWasValue { byteCount += 4 }
        guard !isOver else { return }
        if lastWasValue {
            names.append([])
            values.append([])
        }
        names[names.count - 1].append(contentsOf: bytes)
    }

    /// The head is complete.
    mutating func end() { (isOver, lastWasValue) = (true, true) }

    /// Another head follows, which counts with this one.
    mutating func restart() { (names, values, lastWasValue) = ([], [], true) }
}
