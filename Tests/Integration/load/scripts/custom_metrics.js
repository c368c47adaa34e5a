import { Counter, Gauge, Rate, Trend } from 'k6/metrics';

const counter = new Counter('a_counter'), gauge = new Gauge('a_gauge');
const rate = new Rate('a_rate'), trend = new Trend('a_trend'), time = new Trend('a_time', true);
export const options = {
    iterations: 100,
    summaryTrendStats: ['avg', 'min', 'med', 'max', 'p(99)', 'count'],
    thresholds: {
        a_counter: ['count==4950', 'rate>0'], a_gauge: ['value==99'], a_rate: ['rate==0.25'],
        a_trend: ['avg>49', 'avg<50', 'min==0', 'max==99', 'med>48.5', 'med<50', 'p(99)>97', 'p(99)<99'],
    },
};

export default function () {
    counter.add(__ITER);
    gauge.add(__ITER);
    rate.add(__ITER % 4 === 0);
    trend.add(__ITER);
    time.add(__ITER * 10);
}
