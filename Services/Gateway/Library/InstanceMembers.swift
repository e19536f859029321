import EventLoop
import RPC
import Scheduling
import ServiceSupport
import Serving

/// Attention instances as the gateway is told of them: one by its address, or all that a name stands for.
public struct InstanceAddress: Sendable, Equatable {
    /// Which part of a request they take.
    public let role: Part
    /// Where they listen.
    public let address: HostPort

    /// Instances.
    public init(role: Part, address: HostPort) {
        self.role = role
        self.address = address
    }
}

/// One attention instance that the gateway is connected to, or tries to be. Confined to the router's loop.
final class InstanceMember: @unchecked Sendable {
    /// Its number for placement and in metrics.
    let rank: Int
    let role: Part
    /// `host:port`; the host is an address, also where the instance was found by a name.
    let address: String
    let client: RPCClient
    /// Why it cannot be called.
    var lastError: RPCError? { refusal ?? (client.isReady ? nil : client.lastError) }
    /// Generation of the process that joined the controller; nil while there is none.
    var generation: UInt64?
    /// Why nothing is placed on the process that answers, although it does.
    var refusal: RPCError?
    /// It is told of no more, and goes when it holds no request.
    var isLeaving = false

    init(rank: Int, role: Part, address: String, client: RPCClient) {
        self.rank = rank
        self.role = role
        self.address = address
        self.client = client
    }
}

/// Who is there, by rank. A rank is given again when its instance is gone, so that metrics have as many labels as there
/// are instances. Confined to the router's loop.
final class InstanceMembers: @unchecked Sendable {
    private let makeClient: (String, Int) -> RPCClient
    private var members: [Int: InstanceMember] = [:]

    init(makeClient: @escaping (String, Int) -> RPCClient) { self.makeClient = makeClient }

    /// All of them in the order of their ranks.
    var all: [InstanceMember] { members.values.sorted { $0.rank < $1.rank } }

    subscript(rank: Int) -> InstanceMember? { members[rank] }

    /// True until it is removed.
    func holds(_ member: InstanceMember) -> Bool { members[member.rank] === member }

    /// The new member at `host`; nil when it is known, which ends its leaving.
    func join(_ host: String, _ source: InstanceAddress) -> InstanceMember? {
        if let known = find(host, source) {
            // It joins the controller anew when it is asked the next time.
            if known.isLeaving { (known.isLeaving, known.generation) = (false, nil) }
            return nil
        }
        let rank = (0...members.count).first { members[$0] == nil } ?? members.count
        let member = InstanceMember(
            rank: rank, role: source.role, address: SocketAddress.text(host, source.address.port),
            client: makeClient(host, source.address.port))
        members[rank] = member
        return member
    }

    /// The member at `host`, which leaves from now on; nil when there is none.
    func leave(_ host: String, _ source: InstanceAddress) -> InstanceMember? {
        let member = find(host, source)
        member?.isLeaving = true
        return member
    }

    /// Forgets an instance that holds no request.
    func remove(_ member: InstanceMember) {
        guard holds(member) else { return }
        members[member.rank] = nil
        member.client.close()
    }

    private func find(_ host: String, _ source: InstanceAddress) -> InstanceMember? {
        all.first { $0.address == SocketAddress.text(host, source.address.port) && $0.role == source.role }
    }

    /// Ends all connections.
    func close() {
        for member in all { member.client.close() }
    }
}
