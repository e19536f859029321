import CCrypto
import WireProtocol

/// The opening of a connection as a pure value: hellos in, hellos and refusals out (SPECIFICATION section 4).
///
/// Both sides prove that they know the shared secret by answering the other's nonce; neither sends it.
struct Handshake: Sendable {
    /// What to do next.
    enum Action: Sendable, Equatable {
        case sendHello(Hello)
        case sendAuthenticate(Authenticate)
        case ready
        case refuse(Failure)
    }

    /// What a side wants of its peer.
    struct Expectation: Sendable, Equatable {
        /// Roles that are welcome; empty welcomes all.
        var roles: [String]
        /// Fingerprint the peer must have. Clients have none and are exempt.
        var fingerprint: String
        /// Layout the peer must have; empty takes any.
        var layout = ""
    }

    private let identity: PeerIdentity
    private let secret: [UInt8]
    private let expectation: Expectation
    private let limits: RPCLimits
    private let nonce: [UInt8]
    /// The peer's hello, once it has come.
    private(set) var peer: Hello?

    init(
        identity: PeerIdentity, secret: [UInt8], expectation: Expectation, limits: RPCLimits,
        nonce: [UInt8] = Handshake.randomNonce()
    ) {
        self.identity = identity
        self.secret = secret
        self.expectation = expectation
        self.limits = limits
        self.nonce = nonce
    }

    static func randomNonce() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 32)
        let status = RAND_bytes(&bytes, 32)
        precondition(status == 1, "the system has no random numbers")
        return bytes
    }

    /// The client's first frame.
    func clientHello() -> Hello { hello(proof: []) }

    /// The server's answer to a client's hello.
    mutating func serverReceived(_ hello: Hello) -> [Action] {
        if let refusal = refusal(of: hello) { return [.refuse(refusal)] }
        peer = hello
        return [.sendHello(self.hello(proof: proof("server", over: hello.nonce, by: nonce)))]
    }

    /// The client's answer to the server's hello.
    mutating func clientReceived(_ hello: Hello) -> [Action] {
        guard equalInConstantTime(hello.proof, proof("server", over: nonce, by: hello.nonce)) else {
            return [.refuse(Failure(code: .unauthenticated, message: "the server's shared secret differs from ours"))]
        }
        if let refusal = refusal(of: hello) { return [.refuse(refusal)] }
        peer = hello
        return [.sendAuthenticate(Authenticate(proof: proof("client", over: hello.nonce, by: nonce))), .ready]
    }

    /// The server's verdict on a client's proof.
    func serverReceived(_ authenticate: Authenticate) -> Action {
        guard let peer, equalInConstantTime(authenticate.proof, proof("client", over: nonce, by: peer.nonce)) else {
            return .refuse(Failure(code: .unauthenticated, message: "the client's shared secret differs from ours"))
        }
        return .ready
    }

    private func hello(proof: [UInt8]) -> Hello {
        var hello = Hello()
        hello.role = identity.role
        hello.instanceID = identity.instanceID
        hello.generation = identity.generation
        hello.fingerprint = identity.fingerprint
        hello.layout = identity.layout
        hello.maximumBody = UInt32(clamping: limits.frames.body)
        hello.streamCredit = limits.streamCredit
        hello.nonce = nonce
        hello.proof = proof
        return hello
    }

    private func refusal(of hello: Hello) -> Failure? {
        if !expectation.roles.isEmpty, !expectation.roles.contains(hello.role) {
            return Failure(
                code: .mismatch,
                message: "peer has role \"\(hello.role)\", wanted is \(expectation.roles.joined(separator: " or "))")
        }
        if hello.role != "client", identity.role != "client", hello.fingerprint != expectation.fingerprint {
            return Failure(
                code: .mismatch,
                message: "model fingerprint differs: peer \(hello.role) has \(hello.fingerprint), "
                    + "\(identity.role) has \(expectation.fingerprint)")
        }
        if !expectation.layout.isEmpty, hello.layout != expectation.layout {
            return Failure(
                code: .mismatch,
                message: "layout differs: peer has \"\(hello.layout)\", wanted is \"\(expectation.layout)\"")
        }
        return nil
    }

    private func proof(_ label: String, over challenge: [UInt8], by own: [UInt8]) -> [UInt8] {
        let message = Array("ironling \(label)".utf8) + challenge + own
        var digest = [UInt8](repeating: 0, count: 32)
        var length: UInt32 = 0
        let key = secret.isEmpty ? [0] : secret
        _ = HMAC(EVP_sha256(), key, Int32(secret.count), message, message.count, &digest, &length)
        return digest
    }

    private func equalInConstantTime(_ a: [UInt8], _ b: [UInt8]) -> Bool {
        a.count == b.count && CRYPTO_memcmp(a, b, a.count) == 0
    }
}
