/// Holds the bytes of a request to the grammar of HTTP/1.1 (RFC 9112) where the parser forgives: ends of lines that are not
/// CR LF, lines that go on in the next, white space in and after a header's name, and chunks that are not framed as they
/// should be. A proxy in front may read such bytes otherwise and see other requests in them.
package struct RequestSyntax: Sendable {
    private enum State {
        case start, startLF, line, lineLF, lineStart, name, headLF
        case sizeStart, size, chunkExtension, sizeLF, data, dataCR, dataLF
        case body, broken
    }

    private var state = State.start
    private var left: UInt64 = 0
    private var isTrailer = false

    /// At the start of a request.
    package init() {}

    /// True once something was not as it should be.
    package var isBroken: Bool { state == .broken }

    /// Takes the next bytes of one request; `isChunked` need be known only when its head is among them.
    package mutating func take(_ bytes: UnsafeRawBufferPointer, isChunked: Bool) {
        var place = 0
        while place < bytes.count, state != .body, state != .broken {
            if state == .data {
                let count = min(left, UInt64(bytes.count - place))
                left -= count
                place += Int(count)
                if left == 0 { state = .dataCR }
            } else {
                state = next(bytes[place], isChunked)
                place += 1
            }
        }
    }

    private mutating func next(_ byte: UInt8, _ isChunked: Bool) -> State {
        switch state {
        case .start: byte == Self.cr ? .startLF : byte > 0x20 ? .line : .broken
        case .startLF: byte == Self.lf ? .start : .broken
        case .line: byte == Self.cr ? .lineLF : byte == Self.lf ? .broken : .line
        case .lineLF: byte == Self.lf ? .lineStart : .broken
        case .lineStart: byte == Self.cr ? .headLF : Self.isName(byte) ? .name : .broken
        case .name: byte == UInt8(ascii: ":") ? .line : Self.isName(byte) ? .name : .broken
        case .headLF: byte != Self.lf ? .broken : isChunked && !isTrailer ? .sizeStart : .body
        default: nextOfChunk(byte)
        }
    }

    private mutating func nextOfChunk(_ byte: UInt8) -> State {
        switch state {
        case .sizeStart:
            left = 0
            return digit(byte)
        case .size:
            switch byte {
            case Self.cr: return .sizeLF
            case UInt8(ascii: ";"): return .chunkExtension
            default: return digit(byte)
            }
        case .chunkExtension: return byte == Self.cr ? .sizeLF : byte == Self.lf ? .broken : .chunkExtension
        case .sizeLF:
            isTrailer = left == 0
            return byte != Self.lf ? .broken : isTrailer ? .lineStart : .data
        case .dataCR: return byte == Self.cr ? .dataLF : .broken
        default: return byte == Self.lf ? .sizeStart : .broken
        }
    }

    private mutating func digit(_ byte: UInt8) -> State {
        guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue, left >> 56 == 0 else { return .broken }
        left = left << 4 | UInt64(digit)
        return .size
    }

    private static let cr: UInt8 = 13
    private static let lf: UInt8 = 10

    /// What the name of a header is made of.
    private static func isName(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
        }
    }
}
