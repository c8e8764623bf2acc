"""What `rig bisect --help` says."""

HELP = """\
usage: rig [flags] bisect [series=PATH] [select=CELLS] [signature=GLOB] [KEY=VALUE ...]
       rig [flags] bisect [--counts] [count=GLOB] [case=GLOB] [series=PATH] [select=CELLS] [KEY=VALUE ...]
       rig [flags] bisect good=REF bad=REF kernel.source=git:PATH [select=CELLS] [KEY=VALUE ...]

Which patch of the series did it? You need not say what is broken: the tip of the series is tried until something is
found, then the base. What the tip shows and the base does not is hunted over the prefixes of the series.

A race does not show in every trial. So no trial acquits a patch for good, and one crash convicts nobody: the rig keeps
the probability of each patch, with the failure rate estimated as it goes, and runs the trial that is expected to tell
most per second, building included. It stops when a patch is 95 % sure, and when striking out any one failure would not
change that. Only the same finding counts as the same bug; what else is found is told on the side.

  series=PATH       as for `rig test`
  select=GLOB       the cells to look in; without it, those first that concern what the series touches, until something
                    shows
  signature=GLOB    hunt only findings whose signature or title matches: signature='*stale data*'
  confidence=0.95   how sure it must be to name a patch
  limit=3600        seconds of building and trials; what is known by then is told, and a higher limit goes on from there
  looks=12          trials of each cell before the tip counts as clean; 3 of each prefix with --every-prefix
  budget=SECONDS    workload time per trial: the shorter, the more trials, and the seldomer each of them fails
  --every-prefix    build, boot and try each prefix, also when the tip is clean: finds what one patch brings and a later
                    one takes away again, and patches that break the build
  good=REF bad=REF  search the commits of a git tree between two refs instead of a series

What a series costs is hunted as well: with --counts, or one of count= and case=, base and tip are counted as
`rig bench` counts them, without times, and each count that the tip is claimed to have more of, beyond the threshold, is
laid on the patch that costs it, or on several if several do. A count hardly varies, so that one trial places a prefix;
the prefix of the patch that is named and the one before are counted until the same claim holds between them.

  count=GLOB        'atomics per page', 'kernel instructions per page', 'kernel instructions per fault',
                    'excess faults', 'slow path', 'skipped pages', 'waits on a page', or their names in bench.json;
                    without it: whatever became worse
  case=GLOB         cases of bench-faults: one-private-read; without it: all, which takes longer
  cpus=N filesystems=F faults=N counted=N level=P threshold=SHARE
                    as for `rig bench`; counted is the trials of base and tip. Cells are looked at in the order of cpus
                    and filesystems until one shows a cost; with select=GLOB all of those

A prefix that does not build or boot is left out, and the answer widens: "patch 3 or 4: 3 does not build (...)". A patch
that breaks the build is a finding of its own, as is the one that mends it.

results/bisect/latest/ holds bisect.json (rig/schemas/bisect.schema.json), bisect.svg, junit.xml, summary.txt,
summary.md and each trial's evidence. A bisection that was cut off goes on with the same command, and no trial is lost.

exit codes: 0 nothing is to blame (nothing found, or the base has it too), 1 a patch is named, 2 usage or configuration,
3 the host failed, 4 undecided when the time was up, 130 interrupted

examples:
  rig bisect series=my-series
  rig bisect series=my.mbox 'select=*/smp4/truncate-race/tmpfs' budget=5 limit=1800
  rig bisect series=my-series --every-prefix looks=3
  rig bisect kernel.source=git:~/linux good=v6.12 bad=v6.13-rc1 'select=*/fault-stress/tmpfs'
  rig bisect series=my-series --counts cpus=1 filesystems=tmpfs
  rig bisect series=my-series 'count=atomics per page' case=one-private-read cpus=1 filesystems=tmpfs faults=1000

with git's own bisection, from the kernel tree that is bisected, RIG being the folder of the rig:
  git bisect start BAD GOOD
  git bisect run rig -C RIG test --bisect kernel.source=git:$PWD#HEAD 'select=*/fault-stress/tmpfs' trials=8
  exits with 0 (not seen in any trial), 1 (seen), 125 (cannot be judged: does not build, does not boot for another
  reason, no trial says anything) or 128 (the host or the command line: git stops). signature=GLOB says what counts as
  bad; series=PATH puts a series on top of each commit.
"""
