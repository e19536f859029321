/// The byte alphabet of byte-level BPE (GPT-2): every byte is written as one printable character. The bytes ! to ~,
/// ¡ to ¬ and ® to ÿ stand for themselves, the other 68 are, in ascending order, U+0100 and up.
enum ByteAlphabet {
    /// The scalar of each byte.
    static let scalars: [UInt32] = {
        var next: UInt32 = 256
        return (0..<256).map { byte in
            switch byte {
            case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: return UInt32(byte)
            default:
                defer { next += 1 }
                return next
            }
        }
    }()

    /// The byte of each scalar below U+0144; -1 where there is none.
    private static let bytes: [Int16] = {
        var table = [Int16](repeating: -1, count: 324)
        for (byte, scalar) in scalars.enumerated() { table[Int(scalar)] = Int16(byte) }
        return table
    }()

    /// The bytes a vocabulary entry stands for, or nil if one of its characters is not of the alphabet.
    static func bytes(of entry: String) -> [UInt8]? {
        var out: [UInt8] = []
        out.reserveCapacity(entry.utf8.count)
        for scalar in entry.unicodeScalars {
            guard scalar.value < 324, bytes[Int(scalar.value)] >= 0 else { return nil }
            out.append(UInt8(truncatingIfNeeded: bytes[Int(scalar.value)]))
        }
        return out
    }
}
