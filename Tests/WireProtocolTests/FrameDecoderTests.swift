import TestSupport
import Testing
import WireProtocol

@Suite struct FrameDecoderTests {
    private let limits = FrameLimits(metadata: 64, segment: 128, body: 256)

    @Test func everySplitIntoTwoReads() throws {
        let bytes = frame(metadata: [1, 2, 3], body: Array(0..<70)) + frame(kind: .ping) + frame(metadata: [9])
        for cut in 0...bytes.count {
            let frames = try decode([Array(bytes[..<cut]), Array(bytes[cut...])])
            #expect(frames.map(\.header.kind) == [.item, .ping, .item], "cut at \(cut)")
            #expect(frames[0].metadata == [1, 2, 3] && frames[2].metadata == [9], "cut at \(cut)")
            #expect(frames[0].body.map { Array($0.bytes) } == Array(0..<70), "cut at \(cut)")
        }
    }

    @Test func byteByByteAndAligned() throws {
        let frames = try decode(frame(metadata: [4], body: Array(0..<65)).map { [$0] })
        let body = try #require(frames.first?.body)
        #expect(frames.count == 1 && Array(body.bytes) == Array(0..<65) && Int(bitPattern: body.pointer) % 64 == 0)
    }

    @Test func everyTruncationWaits() throws {
        let bytes = frame(metadata: [1, 2, 3], body: [4, 5])
        for count in 0..<bytes.count { #expect(try decode([Array(bytes[..<count])]).isEmpty, "\(count) bytes") }
    }

    /// Checksums cover every byte: whichever is changed, and however, no frame comes out.
    @Test func everySingleByteFlip() {
        let bytes = frame(metadata: [1, 2, 3], body: [4, 5])
        for index in bytes.indices {
            for mask in [UInt8(1), 0x80, 0xFF, 0x10] {
                var broken = bytes
                broken[index] ^= mask
                #expect(throws: WireError.self, "byte \(index) xor \(mask)") { try decode([broken]) }
            }
        }
    }

    /// Flips behind a recomputed header checksum: rules, not luck, must hold.
    @Test func everyHeaderByteWithAValidChecksum() {
        for index in 0..<60 {
            for value in UInt8.min...UInt8.max {
                var header = Array(frame(kind: .ping)[..<60])
                header[index] = value
                _ = try? decode([sealed(header)])
            }
        }
    }

    @Test func lengthsAtTheirLimits() throws {
        #expect(try decode([frame(metadata: Array(repeating: 1, count: 64))]).count == 1)
        #expect(try decode([frame(body: Array(repeating: 1, count: 128))]).count == 1)
        #expect(try decode([frame(body: [1], total: 256)]).count == 1)
        #expect(throws: WireError.self) { try decode([frame(metadata: Array(repeating: 1, count: 65))]) }
        #expect(throws: WireError.self) { try decode([frame(body: Array(repeating: 1, count: 129))]) }
        #expect(throws: WireError.self) { try decode([frame(body: [1], total: 257)]) }
        #expect(throws: WireError.self) { try decode([frame(body: [1, 2], total: 1)]) }
    }

    /// A length over the limit is refused with the header, before any byte it announces.
    @Test(arguments: [12, 48, 52], [0x7FFF_FFFF, 0x8000_0000, UInt32.max])
    func hugeLengths(_ offset: Int, _ length: UInt32) {
        var header = Array(frame(kind: .item)[..<60])
        header.replaceSubrange(offset..<offset + 4, with: words(length))
        #expect(throws: WireError.self) { try decode([sealed(header)]) }
    }

    @Test func unknownVersionKindAndFlags() throws {
        func header(_ offset: Int, _ value: UInt8) -> [UInt8] {
            var header = Array(frame(kind: .ping)[..<60])
            header[offset] = value
            return sealed(header)
        }
        for version in UInt8.min...UInt8.max {
            #expect(((try? decode([header(4, version)])) != nil) == (version == 2), "version \(version)")
        }
        for kind in UInt8.min...UInt8.max {
            #expect(((try? decode([header(5, kind)])) != nil) == (1...12).contains(kind), "kind \(kind)")
        }
        for flags in UInt8.min...UInt8.max {
            #expect(((try? decode([header(10, flags)])) != nil) == (flags < 4), "flags \(flags)")
            #expect(try decode([header(11, flags)]).count == 1, "flags \(flags) << 8")
        }
        #expect(throws: WireError.self) { try decode([header(6, 65)]) }
        #expect(throws: WireError("magic is not IRNL: not an Ironling peer")) { try decode([header(0, 0)]) }
    }

    @Test func checksumIsThatOfZlib() {
        #expect(Array("123456789".utf8).withUnsafeBytes { checksum32($0) } == 0xCBF4_3926)
        #expect(checksum32(UnsafeRawBufferPointer(start: nil, count: 0)) == 0)
    }

    @Test func randomStreams() throws {
        for seed in UInt64(1)...300 {
            var generator = SeededRandom(seed: seed)
            let sent = (0..<4).map { _ in
                frame(
                    metadata: generator.bytes(Int.random(in: 0...64, using: &generator)),
                    body: generator.bytes(Int.random(in: 0...128, using: &generator)))
            }
            var rest = sent.flatMap(\.self)[...]
            var reads: [[UInt8]] = []
            while !rest.isEmpty {
                reads.append(Array(rest.prefix(Int.random(in: 1...150, using: &generator))))
                rest = rest.dropFirst(reads[reads.count - 1].count)
            }
            #expect(try decode(reads).map(encode) == sent, "seed \(seed)")
        }
    }

    private func decode(_ reads: [[UInt8]]) throws(WireError) -> [Frame] {
        var decoder = FrameDecoder(limits: limits)
        var frames: [Frame] = []
        for read in reads {
            let buffer = AlignedBuffer(count: read.count)
            buffer.pointer.copyMemory(from: read, byteCount: read.count)
            var rest = buffer.bytes
            while let frame = try decoder.next(&rest) { frames.append(frame) }
        }
        return frames
    }

    private func sealed(_ header: [UInt8]) -> [UInt8] { header + words(header.withUnsafeBytes { checksum32($0) }) }

    private func frame(
        kind: FrameKind = .item, metadata: [UInt8] = [], body: [UInt8] = [], total: UInt32? = nil
    ) -> [UInt8] {
        var header = FrameHeader(kind: kind, requestID: 3)
        header.messageBodyLength = total ?? UInt32(body.count)
        return encodeFrame(header, metadata, body)
    }

    private func encode(_ frame: Frame) -> [UInt8] {
        encodeFrame(frame.header, frame.metadata, frame.body.map { Array($0.bytes) } ?? [])
    }
}

/// A frame as senders make it: lengths and payload checksum set.
func encodeFrame(_ header: FrameHeader, _ metadata: [UInt8], _ body: [UInt8]) -> [UInt8] {
    var header = header
    header.metadataLength = UInt32(metadata.count)
    header.bodyLength = UInt32(body.count)
    header.flags.insert(.payloadChecksum)
    header.payloadChecksum = (metadata + body).withUnsafeBytes { checksum32($0) }
    var bytes: [UInt8] = []
    header.encode(into: &bytes)
    return bytes + metadata + body
}
