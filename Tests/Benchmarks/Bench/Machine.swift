import Foundation
import Glibc
import Numerics

/// What the numbers were measured on.
struct Machine: Encodable {
    let cpu: String
    let processors: Int
    let threads: Int
    let memoryBytes: UInt64
    let kernel: String
    let date: String

    init(threads: Int) {
        let lines = ((try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? "").split(separator: "\n")
        let model = lines.first { $0.hasPrefix("model name") }?.split(separator: ":").last
        cpu = model.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown"
        processors = ProcessInfo.processInfo.activeProcessorCount
        self.threads = threads
        memoryBytes = ProcessInfo.processInfo.physicalMemory
        kernel = ProcessInfo.processInfo.operatingSystemVersionString
        date = ISO8601DateFormatter().string(from: Date())
    }
}

/// The two roofs, measured with all threads at once: what memory delivers to readers and what the multiply-add units do.
struct Peaks: Encodable {
    private(set) var bytesPerSecond = 0.0
    private(set) var flopsPerSecond = 0.0

    private static let bufferBytes = 512 << 20
    private static let pieceBytes = 1 << 20

    /// Measures both again and keeps the better values.
    mutating func measure(_ team: ThreadTeam) throws {
        bytesPerSecond = max(bytesPerSecond, try Self.bandwidth(team))
        flopsPerSecond = max(flopsPerSecond, Self.multiplyAdds(team))
    }

    private static func bandwidth(_ team: ThreadTeam) throws -> Double {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS
        guard let buffer = mmap(nil, bufferBytes, PROT_READ | PROT_WRITE, flags, -1, 0), buffer != MAP_FAILED else {
            throw BenchError("\(bufferBytes) bytes for the bandwidth measurement cannot be mapped")
        }
        defer { munmap(buffer, bufferBytes) }
        madvise(buffer, bufferBytes, MADV_HUGEPAGE)
        memset(buffer, 1, bufferBytes)
        let sink = UnsafeMutablePointer<Float>.allocate(capacity: bufferBytes / pieceBytes)
        defer { sink.deallocate() }
        var best = 0.0
        for _ in 0..<8 {
            let started = seconds()
            team.run(bufferBytes / pieceBytes) { part in
                sink[part] = sum(buffer + part * pieceBytes, pieceBytes)
            }
            best = max(best, Double(bufferBytes) / (seconds() - started))
        }
        return best
    }

    /// Adds up `count` bytes, four streams at a time.
    private static func sum(_ pointer: UnsafeRawPointer, _ count: Int) -> Float {
        var (a, b, c, d) = (SIMD16<Float>(), SIMD16<Float>(), SIMD16<Float>(), SIMD16<Float>())
        let quarter = count / 4
        var offset = 0
        while offset < quarter {
            a += pointer.loadUnaligned(fromByteOffset: offset, as: SIMD16<Float>.self)
            b += pointer.loadUnaligned(fromByteOffset: offset + quarter, as: SIMD16<Float>.self)
            c += pointer.loadUnaligned(fromByteOffset: offset + 2 * quarter, as: SIMD16<Float>.self)
            d += pointer.loadUnaligned(fromByteOffset: offset + 3 * quarter, as: SIMD16<Float>.self)
            offset += 64
        }
        return (a + b + c + d).sum()
    }

    private static func multiplyAdds(_ team: ThreadTeam) -> Double {
        let rounds = 4_000_000
        let sink = UnsafeMutablePointer<Float>.allocate(capacity: team.threadCount)
        defer { sink.deallocate() }
        var best = 0.0
        for _ in 0..<5 {
            let started = seconds()
            team.run(team.threadCount) { part in sink[part] = chains(rounds, seed: Float(part)) }
            let flops = Double(team.threadCount) * Double(rounds) * 12 * 16 * 2
            best = max(best, flops / (seconds() - started))
        }
        return best
    }

    /// Twelve independent chains of fused multiply-adds in registers.
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
