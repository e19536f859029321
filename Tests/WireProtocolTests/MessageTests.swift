import TestSupport
import Testing
import WireProtocol

@Suite struct MessageTests {
    @Test(arguments: MessageCodec.all)
    func roundTrip(_ codec: MessageCodec) throws {
        for seed in UInt64(1)...200 {
            var generator = SeededRandom(seed: seed)
            let (bytes, isEqual) = try codec.sample(&generator)
            #expect(isEqual, "seed \(seed)")
            #expect(try codec.recode(bytes) == bytes, "seed \(seed)")
        }
    }

    /// A message cut anywhere is refused, unless the cut falls between fields; then it reads as what is left.
    @Test(arguments: MessageCodec.all)
    func everyTruncation(_ codec: MessageCodec) throws {
        var generator = SeededRandom(seed: 7)
        let bytes = try codec.sample(&generator).bytes
        let boundaries = fieldBoundaries(bytes)
        for count in 0..<bytes.count {
            let isRefused = (try? codec.recode(Array(bytes[..<count]))) == nil
            #expect(isRefused || boundaries.contains(count), "cut to \(count) of \(bytes.count)")
        }
    }

    /// Mutated messages are refused or read as another valid message, which then is stable.
    @Test(arguments: MessageCodec.all)
    func mutations(_ codec: MessageCodec) throws {
        for seed in UInt64(1)...2000 {
            var generator = SeededRandom(seed: seed)
            var bytes = try codec.sample(&generator).bytes
            for _ in 0..<Int.random(in: 1...3, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = generator.bytes(1)[0]
            }
            guard let once = try? codec.recode(bytes) else { continue }
            #expect(try codec.recode(once) == once, "seed \(seed)")
        }
    }

    /// Every tag with lengths around the edges of what follows and of the integer types.
    @Test(arguments: MessageCodec.all)
    func hostileFieldLengths(_ codec: MessageCodec) {
        for tag in [UInt16](0...40) + [0x7FFF, 0x8001, 0x8028, 0xFFFF] {
            for length in [0, 1, 3, 4, 7, 8, 9, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF8, UInt32.max] {
                let value = [UInt8](repeating: 0xFF, count: Int(min(length, 9)))
                _ = try? codec.recode(words(tag) + words(UInt16(0)) + words(length) + value)
                let short = words(tag) + words(UInt16(0)) + words(length) + value.dropLast()
                #expect(length == 0 || (try? codec.recode(short)) == nil, "tag \(tag) length \(length)")
            }
        }
    }

    /// What the receiver would refuse for its length would be worse than what is left out.
    @Test func sentencesThatAreTooLongAreCutAndNotRefused() throws {
        let long = String(repeating: "no 語 can be called; ", count: 1000)
        let failure = try Failure(decoding: Failure(code: .unavailable, message: long).encoded())
        #expect(long.hasPrefix(failure.message) && failure.message.utf8.count > 4000)
        let missing = StatusReply.Missing(service: "sampler", reason: long)
        let status = try StatusReply(decoding: StatusReply(counters: [:], missing: [missing]).encoded())
        #expect(status.missing[0].service == "sampler" && long.hasPrefix(status.missing[0].reason))
    }

    @Test func aLinkThatIsUnknownCountsAsTheServicesOwn() throws {
        var bytes = Failure(code: .internal, message: "x", link: .handOff).encoded()
        bytes[bytes.count - 1] = 200
        #expect(try Failure(decoding: bytes) == Failure(code: .internal, message: "x"))
    }

    @Test func unknownFieldsAreSkippedUnlessTheyMustBeUnderstood() throws {
        let credit = Credit(bytes: 5).encoded()
        let extra = words(UInt16(100)) + words(UInt16(0)) + words(UInt32(1)) + [9]
        #expect(try Credit(decoding: extra + credit).bytes == 5)
        #expect(throws: WireError("metadata field 100 must be understood and is unknown")) {
            try Credit(decoding: words(UInt16(0x8000 | 100)) + extra.dropFirst(2) + credit)
        }
        #expect(throws: WireError("metadata field 1 is there twice")) { try Credit(decoding: credit + credit) }
        #expect(try Credit(decoding: words(UInt16(0x8001)) + credit.dropFirst(2)).bytes == 5)
    }

    @Test func atMost64Fields() throws {
        let credit = Credit(bytes: 5).encoded()
        let fields = (100..<163).map { words(UInt16($0)) + [UInt8](repeating: 0, count: 6) }
        #expect(try Credit(decoding: credit + fields.joined()).bytes == 5)
        let more = words(UInt16(99)) + [UInt8](repeating: 0, count: 6)
        #expect(throws: WireError.self) { try Credit(decoding: credit + fields.joined() + more) }
    }

    @Test(arguments: [Float.nan, -.nan, .infinity, -.infinity, -0.001, 100.5])
    func samplingOutOfRangeIsRefusedByName(_ value: Float) {
        var request = GenerateRequest(prompt: .text("x"))
        request.request.sampling.temperature = value
        let error = #expect(throws: WireError.self) { try GenerateRequest(decoding: request.encoded()) }
        #expect(error?.description.contains("temperature") == true)
    }

    @Test func limitsOfRequests() {
        func refused(_ change: (inout GenerateRequest) -> Void) -> Bool {
            var request = GenerateRequest(prompt: .tokens([1]))
            change(&request)
            return (try? GenerateRequest(decoding: request.encoded())) == nil
        }
        #expect(!refused { $0.request.maximumTokens = 262_144 })
        #expect(refused { $0.request.maximumTokens = 262_145 })
        #expect(refused { $0.request.maximumTokens = 0 })
        #expect(!refused { $0.request.topLogprobs = 20 })
        #expect(refused { $0.request.topLogprobs = 21 })
        #expect(!refused { $0.request.stopTexts = Array(repeating: String(repeating: "x", count: 256), count: 16) })
        #expect(refused { $0.request.stopTexts = [String(repeating: "x", count: 257)] })
        #expect(refused { $0.request.stopTexts = Array(repeating: "", count: 17) })
        #expect(refused { $0.request.stopTokens = Array(0...64) })
        #expect(!refused { $0.prompt = .tokens(Array(repeating: 1, count: 262_144)) })
        #expect(refused { $0.prompt = .tokens(Array(repeating: 1, count: 262_145)) })
    }

    private func fieldBoundaries(_ bytes: [UInt8]) -> Set<Int> {
        var result: Set = [0]
        var offset = 0
        while offset + 8 <= bytes.count {
            offset += 8 + (0..<4).reduce(0) { $0 | Int(bytes[offset + 4 + $1]) << (8 * $1) }
            result.insert(offset)
        }
        return result
    }
}

/// Little-endian bytes of a number.
func words<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
    withUnsafeBytes(of: value.littleEndian) { Array($0) }
}
