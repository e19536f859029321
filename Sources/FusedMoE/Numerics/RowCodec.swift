import Numerics

/// How rows look on the wire and in device memory: tokens to experts, results back (docs/kernels.md#arithmetic).
public struct RowCodec: Sendable {
    /// Format of the tokens.
    public let format: TokenFormat
    /// Values of a row.
    public let hidden: Int

    /// Rows of `hidden` values in a format.
    public init(format: TokenFormat, hidden: Int) {
        self.format = format
        self.hidden = hidden
    }

    /// The scale that maps a row with this largest magnitude onto e4m3: max(amax / 448, 1e-12), where the published
    /// kernel multiplies by the rounded reciprocal.
    public static func scale(largestMagnitude: Float) -> Float { max(largestMagnitude * (1 / 448), 1e-12) }

    /// Scale and e4m3 values of one row, decoded again.
    static func quantize(_ row: UnsafePointer<Float>, _ count: Int, into out: UnsafeMutablePointer<Float>) -> Float {
        var largest: Float = 0
        for i in 0..<count { largest = max(largest, row[i].magnitude) }
        let scale = scale(largestMagnitude: largest)
        for i in 0..<count { out[i] = Float8E4M3(row[i] / scale).float }
        return scale
    }

    /// A token's row as it is sent. `row` is fp32 [H]; `bytes` has room for `format.rowBytes(hidden:)`.
    public func encode(_ row: UnsafePointer<Float>, into bytes: UnsafeMutableRawPointer) {
        switch format {
        case .float32: bytes.copyMemory(from: row, byteCount: 4 * hidden)
        case .bfloat16: Self.storeBFloat16(row, hidden, into: bytes)
        case .float8(let carrier): quantize(row, carrier, into: bytes)
        }
    }

    private func quantize(_ row: UnsafePointer<Float>, _ carrier: ScaleCarrier, into bytes: UnsafeMutableRawPointer) {
        // the kernel reads the row in bf16
        var largest: Float = 0
        for i in 0..<hidden { largest = max(largest, BFloat16(row[i]).float.magnitude) }
        let scale = Self.scale(largestMagnitude: largest)
        for i in 0..<hidden {
            bytes.storeBytes(
                of: Float8E4M3(BFloat16(row[i]).float / scale).bitPattern, toByteOffset: i, as: UInt8.self)
        }
        for plane in 0..<4 {
            let offset = carrier == .faithful ? (plane + 1) * hidden / 4 - 1 : hidden + plane
            let byte = UInt8(truncatingIfNeeded: scale.bitPattern >> (8 * UInt32(plane)))
            bytes.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
        }
    }

    /// A received row as the matrix units take it: unscaled values in fp32 [H], and the row's scale (1 when there is none).
    public func decode(_ bytes: UnsafeRawPointer, into row: UnsafeMutablePointer<Float>) -> Float {
        switch format {
        case .float32: UnsafeMutableRawPointer(row).copyMemory(from: bytes, byteCount: 4 * hidden)
        case .bfloat16: Self.loadBFloat16(bytes, hidden, into: row)
        case .float8(let carrier): return dequantize(bytes, carrier, into: row)
        }
        return 1
    }

    private func dequantize(
        _ bytes: UnsafeRawPointer, _ carrier: ScaleCarrier, into row: UnsafeMutablePointer<Float>
    ) -> Float {
        for i in 0..<hidden {
            row[i] = Float8E4M3(bitPattern: bytes.load(fromByteOffset: i, as: UInt8.self)).float
        }
        var bits: UInt32 = 0
        for plane in 0..<4 {
            let offset = carrier == .faithful ? (plane + 1) * hidden / 4 - 1 : hidden + plane
            bits |= UInt32(bytes.load(fromByteOffset: offset, as: UInt8.self)) << (8 * UInt32(plane))
            if carrier == .faithful { row[offset] = 0 }
        }
        return Float(bitPattern: bits)
    }

    /// A row of results [H] as it is sent back: bf16, or fp32 when nothing is quantised.
    public func encodeResult(_ row: UnsafePointer<Float>, into bytes: UnsafeMutableRawPointer) {
        guard format != .float32 else {
            bytes.copyMemory(from: row, byteCount: 4 * hidden)
            return
        }
        Self.storeBFloat16(row, hidden, into: bytes)
    }

    /// A row of results in fp32 [H].
    public func decodeResult(_ bytes: UnsafeRawPointer, into row: UnsafeMutablePointer<Float>) {
        guard format != .float32 else {
            UnsafeMutableRawPointer(row).copyMemory(from: bytes, byteCount: 4 * hidden)
            return
        }
        Self.loadBFloat16(bytes, hidden, into: row)
    }

    private static func storeBFloat16(
        _ row: UnsafePointer<Float>, _ count: Int, into bytes: UnsafeMutableRawPointer
    ) {
        for i in 0..<count {
            bytes.storeBytes(of: BFloat16(row[i]).bitPattern, toByteOffset: 2 * i, as: UInt16.self)
        }
    }

    private static func loadBFloat16(
        _ bytes: UnsafeRawPointer, _ count: Int, into row: UnsafeMutablePointer<Float>
    ) {
        for i in 0..<count {
            row[i] = BFloat16(bitPattern: bytes.loadUnaligned(fromByteOffset: 2 * i, as: UInt16.self)).float
        }
    }
}
