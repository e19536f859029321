import ContentIdentity
import RPC
import Testing
import WireProtocol

/// The opening of a connection, hello by hello, without one.
struct HandshakeTests {
    private static let secret = Array("secret".utf8)
    private static let weights = ["a": ContentDigest(of: [1]), "b.weight": ContentDigest(of: [2])]

    private static func side(_ role: String, expects peer: String, _ contents: ContentManifest?) -> Handshake {
        Handshake(
            identity: PeerIdentity(role: role, fingerprint: "f00d", contents: contents), secret: secret,
            expectation: .init(roles: [peer], fingerprint: "f00d"), limits: RPCLimits())
    }

    /// The refusal of either side when an attention instance calls a sampler; nil when they agree.
    private static func refusal(
        client: ContentManifest?, server: ContentManifest?, role: String = "attention"
    ) throws -> Failure? {
        var attention = side(role, expects: "sampler", client)
        var sampler = side("sampler", expects: role, server)
        for action in sampler.serverReceived(try Hello(decoding: attention.clientHello().encoded())) {
            switch action {
            case .refuse(let failure): return failure
            case .sendHello(let hello):
                #expect(role != "client" || hello.contents == nil)
                for answer in attention.clientReceived(try Hello(decoding: hello.encoded())) {
                    if case .refuse(let failure) = answer { return failure }
                }
            default: break
            }
        }
        return nil
    }

    @Test func equalContentsAgree() throws {
        let contents = ContentManifest(tensors: Self.weights, files: ["tokenizer.json": ContentDigest(of: [3])])
        #expect(try Self.refusal(client: contents, server: contents) == nil)
        #expect(try Self.refusal(client: nil, server: nil) == nil)
    }

    @Test func otherContentsAreRefusedByTheNameOfWhatDiffers() throws {
        let own = ContentManifest(tensors: Self.weights, files: ["tokenizer.json": ContentDigest(of: [3])])
        let changed = Self.weights.merging(["b.weight": ContentDigest(of: [9])]) { $1 }
        let weights = try Self.refusal(client: own, server: ContentManifest(tensors: changed, files: [:]))
        #expect(weights?.code == .mismatch)
        #expect(weights?.message.contains("peer attention and sampler: tensor b.weight;") == true)
        let tokenizer = try Self.refusal(
            client: own,
            server: ContentManifest(tensors: Self.weights, files: ["tokenizer.json": ContentDigest(of: [4])]))
        #expect(tokenizer?.message.contains("tokenizer.json;") == true)
    }

    @Test func whoSaysNothingOfItsContentsIsRefusedByWhoDoes() throws {
        let own = ContentManifest(tensors: Self.weights, files: [:])
        #expect(try Self.refusal(client: nil, server: own)?.message.contains("does not say what its weights") == true)
        #expect(try Self.refusal(client: own, server: nil)?.message.contains("serves weights") == true)
    }

    @Test func clientsHaveNoContentsAndAreNotTold() throws {
        let own = ContentManifest(tensors: Self.weights, files: [:])
        #expect(try Self.refusal(client: nil, server: own, role: "client") == nil)
    }

    @Test func aHelloWithContentsFitsItsFrame() throws {
        var hello = Hello()
        (hello.role, hello.instanceID) = (String(repeating: "r", count: 64), String(repeating: "i", count: 256))
        (hello.fingerprint, hello.layout) = (String(repeating: "f", count: 128), String(repeating: "l", count: 256))
        (hello.nonce, hello.proof) = ([UInt8](repeating: 1, count: 32), [UInt8](repeating: 2, count: 32))
        let files = (0..<16).map { ("\($0)" + String(repeating: "n", count: 62), ContentDigest(of: [UInt8($0)])) }
        hello.contents =
            ContentManifest(tensors: Self.weights, files: Dictionary(uniqueKeysWithValues: files)).summary
        #expect(hello.encoded().count <= 8192)
        #expect(try Hello(decoding: hello.encoded()) == hello)
    }

    @Test func contentsThatAreNotWholeAreRefused() throws {
        func message(_ change: (inout [UInt16: [UInt8]]) -> Void) -> String? {
            var fields: [UInt16: [UInt8]] = [
                10: ContentDigest(of: [1]).bytes, 11: ContentSketch().bytes,
                12: [3, 0, 0, 0] + Array("a.b".utf8), 13: ContentDigest(of: [2]).bytes,
            ]
            change(&fields)
            var writer = FieldWriter()
            writer.put(6, UInt32(1 << 20))
            writer.put(7, UInt32(4096))
            writer.put(8, [UInt8](repeating: 0, count: 32))
            for (tag, bytes) in fields.sorted(by: { $0.key < $1.key }) { writer.put(tag, bytes) }
            do throws(WireError) {
                _ = try Hello(decoding: writer.bytes)
                return nil
            } catch { return error.description }
        }
        #expect(message { _ in } == nil)
        #expect(message { $0[10]?.removeLast() }?.contains("weights digest has 15 bytes") == true)
        #expect(message { $0[11] = nil }?.contains("weights sketch has 0 bytes") == true)
        #expect(message { $0[13] = [] }?.contains("file digests have 0 bytes for 1 files") == true)
        #expect(message { $0[12] = [9, 0, 0, 0] }?.contains("file names") == true)
    }
}
