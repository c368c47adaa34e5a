import { sleep } from 'k6';
import { Rate } from 'k6/metrics';

const good = new Rate('good');
export const options = {
    vus: 2, duration: '60s',
    thresholds: { good: [{ threshold: 'rate>0.5', abortOnFail: true, delayAbortEval: '1s' }] },
};

export default function () {
    good.add(false);
    sleep(0.1);
}
