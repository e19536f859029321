/// How the elements of a stored matrix are written.
public enum ElementType: String, Sendable, Equatable {
    /// IEEE 754 single precision.
    case float32
    /// Upper half of an fp32.
    case bfloat16
    /// 8-bit float, largest 448.
    case float8E4M3

    /// Bytes of one element.
    public var byteCount: Int {
        switch self {
        case .float32: 4
        case .bfloat16: 2
        case .float8E4M3: 1
        }
    }
}

/// A weight matrix [rows = out, columns = in], row-major, read in its stored type. It borrows its memory, which may be
/// unaligned; whoever made it keeps that alive.
public struct WeightMatrix: Sendable {
    /// Output features.
    public let rows: Int
    /// Input features.
    public let columns: Int
    /// Stored type.
    public let elementType: ElementType
    /// `rows * columns` elements, which are only read.
    public nonisolated(unsafe) let elements: UnsafeRawPointer
    /// One fp32 factor per row, or nil.
    public nonisolated(unsafe) let scales: UnsafePointer<Float>?

    /// A view of elements [rows, columns], with scales [rows] or none.
    public init(
        rows: Int, columns: Int, elementType: ElementType, elements: UnsafeRawPointer,
        scales: UnsafePointer<Float>? = nil
    ) {
        self.rows = rows
        self.columns = columns
        self.elementType = elementType
        self.elements = elements
        self.scales = scales
    }

    /// Rows `range` as a matrix of their own.
    public func rows(_ range: Range<Int>) -> WeightMatrix {
        WeightMatrix(
            rows: range.count, columns: columns, elementType: elementType,
            elements: elements + range.lowerBound * columns * elementType.byteCount,
            scales: scales.map { $0 + range.lowerBound })
    }

    /// Bytes the elements take.
    public var byteCount: Int { rows * columns * elementType.byteCount }
}
