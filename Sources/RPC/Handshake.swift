import CCrypto
import WireProtocol

/// The opening of a connection as a pure value: hellos in, hellos and refusals out (SPECIFICATION section 4).
///
/// Both sides prove that they know the shared secret by answering the other's nonce; neither sends it.
package struct Handshake: Sendable {
    /// What to do next.
    package enum Action: Sendable, Equatable {
        case sendHello(Hello)
        case sendAuthenticate(Authenticate)
        case ready
        case refuse(Failure)
    }

    /// What a side wants of its peer.
    package struct Expectation: Sendable, Equatable {
        /// Roles that are welcome; empty welcomes all.
        var roles: [String]
        /// Fingerprint the peer must have. Clients have none and are exempt.
        var fingerprint: String
        /// Layout the peer must have; empty takes any.
        var layout = ""

        package init(roles: [String], fingerprint: String, layout: String = "") {
            (self.roles, self.fingerprint, self.layout) = (roles, fingerprint, layout)
        }
    }

    private let identity: PeerIdentity
    private let secret: [UInt8]
    private let expectation: Expectation
    private let limits: RPCLimits
    private let nonce: [UInt8]
    /// The peer's hello, once it has come.
    package private(set) var peer: Hello?

    package init(
        identity: PeerIdentity, secret: [UInt8], expectation: Expectation, limits: RPCLimits,
        nonce: [UInt8] = Handshake.randomNonce()
    ) {
        self.identity = identity
        self.secret = secret
        self.expectation = expectation
        self.limits = limits
        self.nonce = nonce
    }

    package static func randomNonce() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 32)
        let status = RAND_bytes(&bytes, 32)
        precondition(status == 1, "the system has no random numbers")
        return bytes
    }

    /// The client's first frame.
    package func clientHello() -> Hello { hello(proof: [], toldContents: true) }

    /// The server's answer to a client's hello.
    package mutating func serverReceived(_ hello: Hello) -> [Action] {
        if let refusal = refusal(of: hello) { return [.refuse(refusal)] }
        peer = hello
        // What is served is no client's business, and much for it to read.
        return [
            .sendHello(
                self.hello(
                    proof: proof("server", over: hello.nonce, by: nonce), toldContents: hello.role != "client"))
        ]
    }

    /// The client's answer to the server's hello.
    package mutating func clientReceived(_ hello: Hello) -> [Action] {
        guard equalInConstantTime(hello.proof, proof("server", over: nonce, by: hello.nonce)) else {
            return [.refuse(Failure(code: .unauthenticated, message: "the server's shared secret differs from ours"))]
        }
        if let refusal = refusal(of: hello) { return [.refuse(refusal)] }
        peer = hello
        return [.sendAuthenticate(Authenticate(proof: proof("client", over: hello.nonce, by: nonce))), .ready]
    }

    /// The server's verdict on a client's proof.
    package func serverReceived(_ authenticate: Authenticate) -> Action {
        guard let peer, equalInConstantTime(authenticate.proof, proof("client", over: nonce, by: peer.nonce)) else {
            return .refuse(Failure(code: .unauthenticated, message: "the client's shared secret differs from ours"))
        }
        return .ready
    }

    private func hello(proof: [UInt8], toldContents: Bool) -> Hello {
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
        hello.contents = toldContents ? identity.contents?.summary : nil
        return hello
    }

    private func refusal(of hello: Hello) -> Failure? {
        if !expectation.roles.isEmpty, !expectation.roles.contains(hello.role) {
            return Failure(
                code: .mismatch,
                message: "peer has role \"\(hello.role)\", wanted is \(expectation.roles.joined(separator: " or "))")
        }
        if hello.role != "client", identity.role != "client", let message = modelRefusal(of: hello) {
            return Failure(code: .mismatch, message: message)
        }
        if !expectation.layout.isEmpty, hello.layout != expectation.layout {
            return Failure(
                code: .mismatch,
                message: "layout differs: peer has \"\(hello.layout)\", wanted is \"\(expectation.layout)\"")
        }
        return nil
    }

    /// Why a service must not work with this one: they would answer each other with what another model computed.
    private func modelRefusal(of hello: Hello) -> String? {
        guard hello.fingerprint == expectation.fingerprint else {
            return "model fingerprint differs: peer \(hello.role) has \(hello.fingerprint), "
                + "\(identity.role) has \(expectation.fingerprint)"
        }
        switch (identity.contents, hello.contents) {
        case (let own?, let peer?):
            guard let difference = own.difference(from: peer) else { return nil }
            return "contents differ between peer \(hello.role) and \(identity.role): \(difference); both must serve "
                + "the same checkpoint"
        case (nil, nil): return nil
        case (nil, _): return "peer \(hello.role) serves weights and \(identity.role) does not"
        case (_, nil): return "peer \(hello.role) does not say what its weights hold, as \(identity.role) does"
        }
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
