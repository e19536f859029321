import RPC
import ServiceSupport

extension InstanceRouter {
    /// Instances that have not said yet what they hold; enough are there when a request could be placed.
    var waiting: PeerWait.Group {
        let absent = members.all.filter { $0.generation == nil }.map { member in
            PeerWait.Absent(
                "attention instance at \(member.address)", member.lastError)
        }
        guard members.all.isEmpty else { return PeerWait.Group(isServed: isReady, absent: absent) }
        let lookups = watches.compactMap(\.lastError?.description)
        let reason = lookups.isEmpty ? "no address is known yet" : lookups.joined(separator: "; ")
        return PeerWait.Group(
            isServed: false, absent: [PeerWait.Absent("attention instances", RPCError(.unavailable, reason))])
    }
}
