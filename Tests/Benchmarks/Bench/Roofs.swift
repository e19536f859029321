import Glibc
import Numerics

/// The two roofs as the report shows them.
struct Peaks: Encodable {
    /// What memory delivers to all threads that read at once.
    let bytesPerSecond: Double
    /// What the fp32 multiply-add units of all threads do, a multiply-add as two.
    let flopsPerSecond: Double
}

/// Measures the two roofs again and again between what is held against them, so that both see the same machine.
final class Roofs {
    private let team: ThreadTeam
    private let buffer: UnsafeMutableRawPointer
    private let sink: UnsafeMutablePointer<Float>
    private(set) var bandwidth = Samples()
    private(set) var flops = Samples()

    private static let bufferBytes = 512 << 20
    private static let pieceBytes = 1 << 20

    init(_ team: ThreadTeam) throws {
        self.team = team
        let flags = MAP_PRIVATE | MAP_ANONYMOUS
        guard let buffer = mmap(nil, Self.bufferBytes, PROT_READ | PROT_WRITE, flags, -1, 0), buffer != MAP_FAILED
        else {
            throw BenchError("\(Self.bufferBytes) bytes for the bandwidth measurement cannot be mapped")
        }
        self.buffer = buffer
        madvise(buffer, Self.bufferBytes, MADV_HUGEPAGE)
        memset(buffer, 1, Self.bufferBytes)
        sink = .allocate(capacity: max(team.threadCount, Self.bufferBytes / Self.pieceBytes))
    }

    deinit {
        munmap(buffer, Self.bufferBytes)
        sink.deallocate()
    }

    var peaks: Peaks { Peaks(bytesPerSecond: bandwidth.median, flopsPerSecond: flops.median) }

    /// Reads the whole buffer once with all threads; bytes per second.
    @discardableResult
    func readOnce() -> Double {
        let started = seconds()
        team.run(Self.bufferBytes / Self.pieceBytes) { part in
            sink[part] = Self.sum(buffer + part * Self.pieceBytes, Self.pieceBytes)
        }
        let value = Double(Self.bufferBytes) / (seconds() - started)
        bandwidth.values.append(value)
        return value
    }

    private static func sum(_ pointer: UnsafeRawPointer, _ count: Int) -> Float {
        var (a, b, c, d) = (SIMD16<Float>(), SIMD16<Float>(), SIMD16<Float>(), SIMD16<Float>())
        var offset = 0
        while offset < count {
            a += pointer.loadUnaligned(fromByteOffset: offset, as: SIMD16<Float>.self)
            b += pointer.loadUnaligned(fromByteOffset: offset + 64, as: SIMD16<Float>.self)
            c += pointer.loadUnaligned(fromByteOffset: offset + 128, as: SIMD16<Float>.self)
            d += pointer.loadUnaligned(fromByteOffset: offset + 192, as: SIMD16<Float>.self)
            offset += 256
        }
        return (a + b + c + d).sum()
    }

    /// Multiplies and adds in registers with all threads; operations per second.
    @discardableResult
    func computeOnce() -> Double {
        let rounds = 2_000_000
        let started = seconds()
        team.run(team.threadCount) { part in sink[part] = Self.chains(rounds, seed: Float(part)) }
        let value = Double(team.threadCount) * Double(rounds) * 12 * 16 * 2 / (seconds() - started)
        flops.values.append(value)
        return value
    }

    /// Twelve independent chains of fused multiply-adds.
    private static func chains(_ rounds: Int, seed: Float) -> Float {
        typealias Lanes = SIMD16<Float>
        let (x, y) = (Lanes(repeating: 0.999 + seed * 1e-6), Lanes(repeating: 1e-3 + seed))
        var (a, b, c, d) = (Lanes(repeating: 1), Lanes(repeating: 2), Lanes(repeating: 3), Lanes(repeating: 4))
        var (e, f, g, h) = (Lanes(repeating: 5), Lanes(repeating: 6), Lanes(repeating: 7), Lanes(repeating: 8))
        var (i, j, k, l) = (Lanes(repeating: 9), Lanes(repeating: 10), Lanes(repeating: 11), Lanes(repeating: 12))
        for _ in 0..<rounds {
            (a, b, c) = (y.addingProduct(a, x), y.addingProduct(b, x), y.addingProduct(c, x))
            (d, e, f) = (y.addingProduct(d, x), y.addingProduct(e, x), y.addingProduct(f, x))
            (g, h, i) = (y.addingProduct(g, x), y.addingProduct(h, x), y.addingProduct(i, x))
            (j, k, l) = (y.addingProduct(j, x), y.addingProduct(k, x), y.addingProduct(l, x))
        }
        return (a + b + c + d + e + f + g + h + i + j + k + l).sum()
    }
}
