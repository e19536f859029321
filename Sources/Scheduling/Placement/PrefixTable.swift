/// Hashes of a prompt's leading blocks.
public enum PrefixHash {
    /// One hash per whole block of `blockTokens` tokens, each over everything before it too, so that equal hashes mean
    /// equal prefixes (up to 64-bit collisions, which cost a detour and no more). At most `maximum` blocks.
    public static func blocks(of tokens: [UInt32], blockTokens: Int = 64, maximum: Int = 64) -> [UInt64] {
        guard blockTokens > 0 else { return [] }
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        return (0..<min(maximum, tokens.count / blockTokens)).map { block in
            for token in tokens[(block * blockTokens)..<((block + 1) * blockTokens)] {
                hash = (hash ^ UInt64(token)) &* 0x9E37_79B9_7F4A_7C15
                hash ^= hash >> 29
            }
            return hash
        }
    }
}

/// Which instance last computed which prefix; bounded, the longest unused is forgotten first.
package struct PrefixTable: Sendable {
    private struct Entry: Sendable {
        var instance: Int
        var used: UInt64
    }

    private let limit: Int
    private var entries: [UInt64: Entry] = [:]
    private var order: [(hash: UInt64, used: UInt64)] = []
    private var head = 0
    private var clock: UInt64 = 0

    package init(limit: Int) { self.limit = max(1, limit) }

    /// The instance of the longest known prefix that `accepts` it, and how many blocks it has.
    package func longest(_ prefix: [UInt64], accepts: (Int) -> Bool) -> (instance: Int, blocks: Int)? {
        for (index, hash) in prefix.enumerated().reversed() {
            guard let entry = entries[hash], accepts(entry.instance) else { continue }
            return (entry.instance, index + 1)
        }
        return nil
    }

    /// Notes that `instance` computes these blocks.
    package mutating func record(_ prefix: [UInt64], instance: Int) {
        for hash in prefix {
            clock += 1
            entries[hash] = Entry(instance: instance, used: clock)
            order.append((hash, clock))
        }
        while entries.count > limit, head < order.count { forgetOldest() }
        guard order.count > 4 * limit + 1024 else { return }
        order = entries.map { ($0.key, $0.value.used) }.sorted { $0.used < $1.used }
        head = 0
    }

    /// Forgets what an instance computed: it is gone, and so is its memory.
    package mutating func forget(instance: Int) { entries = entries.filter { $0.value.instance != instance } }

    /// Notes in `order` that were overtaken by a later use are skipped.
    private mutating func forgetOldest() {
        let (hash, used) = order[head]
        head += 1
        if entries[hash]?.used == used { entries[hash] = nil }
    }
}
