# Tests of the source tree on this kernel, a line of results for each; $SUITES are their files, $MATCH a pattern of names.

export PATH=/vm/tree/node_modules/.bin:$PATH AGENT_UNDER_TEST=/vm/azure-proxy-agent TEST_SLOWNESS=8
cd /vm/tree || exit 1
tell 'the kernel' "$(uname -r)"
node --disable-warning=ExperimentalWarning --test --test-concurrency=1 ${MATCH:+"--test-name-pattern=$MATCH"} \
    --test-reporter=/vm/inside/results-reporter.ts --test-reporter-destination=$RESULTS \
    --test-reporter=spec --test-reporter-destination=stdout $SUITES
tell 'the tests have come to their end' ''
