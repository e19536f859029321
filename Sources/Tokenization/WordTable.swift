/// An open-addressing hash table from 64-bit keys to 64-bit values: the lookups of a BPE merge are too many for a
/// general dictionary. Keys and values must differ from `UInt64.max`.
struct WordTable: Sendable {
    private var keys: [UInt64]
    private var values: [UInt64]
    private var mask: Int
    private(set) var count = 0

    init(minimumCapacity: Int = 8) {
        var size = 16
        while size < minimumCapacity * 2 { size *= 2 }
        keys = [UInt64](repeating: .max, count: size)
        values = [UInt64](repeating: .max, count: size)
        mask = size - 1
    }

    /// The value of the key; setting replaces.
    subscript(_ key: UInt64) -> UInt64? {
        get {
            let place = find(key)
            return keys[place] == key ? values[place] : nil
        }
        set {
            guard let newValue else { return }
            let place = find(key)
            values[place] = newValue
            guard keys[place] != key else { return }
            keys[place] = key
            count += 1
            if count * 2 > keys.count { grow() }
        }
    }

    /// The place of the key, or the free place where it belongs. At most half of the places are taken, so it ends.
    private func find(_ key: UInt64) -> Int {
        var hash = key &* 0x9E37_79B9_7F4A_7C15
        hash ^= hash >> 32
        var place = Int(truncatingIfNeeded: hash &* 0xD6E8_FEB8_6659_FD93 >> 24) & mask
        while keys[place] != key && keys[place] != .max { place = (place + 1) & mask }
        return place
    }

    private mutating func grow() {
        var larger = WordTable(minimumCapacity: keys.count)
        for (key, value) in zip(keys, values) where key != .max { larger[key] = value }
        self = larger
    }
}
