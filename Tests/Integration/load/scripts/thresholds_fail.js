import { Trend, Rate } from 'k6/metrics';

const size = new Trend('size');
const good = new Rate('good');
export const options = {
    iterations: 10,
    thresholds: { size: ['p(90)<5', 'max<100'], good: [{ threshold: 'rate>0.99' }], 'size{half:upper}': ['min>=5'] },
};

export default function () {
    size.add(__ITER, { half: __ITER < 5 ? 'lower' : 'upper' });
    good.add(__ITER !== 3);
}
