import Foundation
import Numerics

/// Per-output-channel FP8: row o becomes e4m3(W[o, :] / s[o]) with s[o] = max |W[o, :]| / 448 (docs/model.md#stored-numbers).
enum RowQuantizer {
    /// Quantised rows [rows, columns] and their scales [rows], both as stored bytes.
    struct Rows {
        var elements: Data
        var scales: Data
    }

    /// Quantises whole rows stored as `storedType` (BF16 or F32); `firstRow` and `tensor` are for messages.
    static func quantize(
        _ stored: Data, storedType: String, columns: Int, tensor: String, firstRow: Int
    ) throws(CheckpointError) -> Rows {
        let values = floats(stored, storedType)
        var result = Rows(elements: Data(capacity: values.count), scales: Data())
        for start in stride(from: 0, to: values.count, by: columns) {
            let row = values[start..<start + columns]
            guard row.allSatisfy(\.isFinite) else {
                throw CheckpointError(
                    .tensor, "tensor \(tensor) has a value that is not finite in row \(firstRow + start / columns)")
            }
            let scale = scale(ofLargest: row.reduce(0) { max($0, $1.magnitude) })
            withUnsafeBytes(of: scale.bitPattern.littleEndian) { result.scales.append(contentsOf: $0) }
            result.elements.append(contentsOf: row.lazy.map { Float8E4M3($0 / scale).bitPattern })
        }
        return result
    }

    /// A row of zeros gets 1, and none gets a scale too small to divide by.
    private static func scale(ofLargest magnitude: Float) -> Float {
        magnitude == 0 ? 1 : max(magnitude / Float8E4M3.greatestFiniteMagnitude, .leastNormalMagnitude)
    }

    private static func floats(_ stored: Data, _ storedType: String) -> [Float] {
        stored.withUnsafeBytes { raw in
            storedType == "F32"
                ? (0..<raw.count / 4).map { raw.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
                : (0..<raw.count / 2).map {
                    BFloat16(bitPattern: raw.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self)).float
                }
        }
    }
}
