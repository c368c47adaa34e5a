// Martlet
// SPDX-License-Identifier: Apache-2.0

/// The natural logarithm of a positive, finite number, to within two units in the last place; minus infinity of 0.
///
/// Of our own because pure modules import no C library. By the series of the inverse hyperbolic tangent, after the
/// exponent is taken off; close to 1 the relative error stays as small.
func naturalLogarithm(_ value: Double) -> Double {
    guard value > 0 else { return -.infinity }
    var exponent = Double(value.exponent)
    var fraction = value.significand
    if fraction > 1.4142135623730951 {
        fraction /= 2
        exponent += 1
    }
    let ratio = (fraction - 1) / (fraction + 1)
    let square = ratio * ratio
    var series = 1.0 / 23
    series = series * square + 1.0 / 21
    series = series * square + 1.0 / 19
    series = series * square + 1.0 / 17
    series = series * square + 1.0 / 15
    series = series * square + 1.0 / 13
    series = series * square + 1.0 / 11
    series = series * square + 1.0 / 9
    series = series * square + 1.0 / 7
    series = series * square + 1.0 / 5
    series = (series * square + 1.0 / 3) * square
    // ln 2 in two parts, of which the first has zeros at its end: its product with an exponent is exact.
    let (high, low) = (0.693147180369123816490, 1.90821492927058770002e-10)
    return exponent * high + (2 * ratio + (2 * ratio * series + exponent * low))
}
