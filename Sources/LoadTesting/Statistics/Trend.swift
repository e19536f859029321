/// A straight line through points by least squares, and whether it rises beyond chance.
public struct Trend: Sendable, Equatable {
    /// Change of y per unit of x.
    public let slope: Double
    /// y at x = 0.
    public let intercept: Double
    /// Slope over its standard error; infinite when all points are on the line. The error is widened by
    /// √((1 + r) / (1 − r)) where r is the correlation of neighbouring residuals: a queue that swings slowly has few
    /// independent points, and would pass for one that grows.
    public let significance: Double
    /// Degrees of freedom, points − 2.
    public let freedom: Int

    /// The trend of `y` over rising `x`; nil with fewer than three points or all at one x.
    public init?(x: [Double], y: [Double]) {
        guard x.count == y.count, x.count >= 3 else { return nil }
        let count = Double(x.count)
        let (meanX, meanY) = (x.reduce(0, +) / count, y.reduce(0, +) / count)
        let spread = x.reduce(0) { $0 + ($1 - meanX) * ($1 - meanX) }
        guard spread > 0 else { return nil }
        let slope = zip(x, y).reduce(0) { $0 + ($1.0 - meanX) * ($1.1 - meanY) } / spread
        let intercept = meanY - slope * meanX
        let residuals = zip(x, y).map { $1 - intercept - slope * $0 }
        let square = residuals.reduce(0) { $0 + $1 * $1 }
        let neighbours = zip(residuals, residuals.dropFirst()).reduce(0) { $0 + $1.0 * $1.1 }
        let correlation = square > 0 ? min(0.95, max(0, neighbours / square)) : 0
        freedom = x.count - 2
        let error = (square / Double(freedom) / spread * (1 + correlation) / (1 - correlation)).squareRoot()
        self.slope = slope
        self.intercept = intercept
        significance = slope == 0 ? 0 : slope / error
    }

    /// True when the slope is above 0 with 99 % confidence (one-sided Student t).
    public var rises: Bool { significance > Self.critical(freedom) }

    /// The 99th percentile of Student's t distribution, rounded up between the tabulated degrees of freedom.
    static func critical(_ freedom: Int) -> Double {
        let table = [
            31.821, 6.965, 4.541, 3.747, 3.365, 3.143, 2.998, 2.896, 2.821, 2.764, 2.718, 2.681, 2.650, 2.624, 2.602,
            2.583, 2.567, 2.552, 2.539, 2.528, 2.518, 2.508, 2.500, 2.492, 2.485, 2.479, 2.473, 2.467, 2.462, 2.457,
        ]
        return table[min(max(freedom, 1), table.count) - 1]
    }
}
