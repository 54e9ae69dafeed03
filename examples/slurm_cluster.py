"""Train on the nodes of a SLURM cluster: dask-jobqueue starts the workers as batch jobs, `altmin train` uses them.

    pip install dask-jobqueue
    python examples/slurm_cluster.py PIPELINE.toml RUN --jobs 4 --queue normal --walltime 04:00:00

Run it on a login node or in a job of its own; the scheduler lives in this process, the samples do not pass through it.
The run folder RUN and every store named in the pipeline must lie on a file system that all nodes mount at the same
path (or the stores and output.z in an object store), and the nodes must have the same Python environment. Jobs may
start late, end at their wall time, and be started again: the run waits, as long as --patience says, and goes on. If
this script itself is stopped, start it again: it resumes.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster
from distributed import Client

parser = argparse.ArgumentParser(description="altmin train on SLURM nodes")
parser.add_argument("pipeline", type=Path)
parser.add_argument("run", type=Path)
parser.add_argument("--jobs", type=int, default=4, help="batch jobs")
parser.add_argument("--workers", type=int, default=4, help="worker processes of a job, one core each")
parser.add_argument("--memory", default="16 GiB", help="of a job")
parser.add_argument("--queue", help="partition")
parser.add_argument("--account")
parser.add_argument("--walltime", default="01:00:00", help="of a job")
parser.add_argument("--interface", help="network between the nodes, such as ib0")
parser.add_argument(
    "--patience", type=float, default=7 * 86400, help="seconds that the run waits for a job; 1 week"
)
parser.add_argument("--print", action="store_true", help="only print the job script")


def main() -> None:
    options = parser.parse_args()
    with SLURMCluster(
        cores=options.workers,  # one core for each process: the matrix products of a task use one thread
        processes=options.workers,
        memory=options.memory,
        queue=options.queue,
        account=options.account,
        walltime=options.walltime,
        worker_extra_args=["--preload", "altmin_dask.worker"],  # memory stays for the next chunk
        interface=options.interface,
        local_directory="/tmp",
    ) as cluster:
        if options.print:
            print(cluster.job_script())
            return
        # as many jobs as asked for, and a new one for each that ends
        cluster.adapt(minimum_jobs=options.jobs, maximum_jobs=options.jobs)
        print(f"scheduler {cluster.scheduler_address}, dashboard {cluster.dashboard_link}; waiting for a job")
        with Client(cluster) as client:
            client.wait_for_workers(1)
        resume = ["--resume"] if (options.run / "pipeline.json").exists() else []
        # jobs may queue for longer than the 5 minutes after which a run without workers ends otherwise
        waits = ["--set", f"cluster.patience={options.patience}"]
        command = ["altmin", "train", options.pipeline, "--run", options.run, *resume, *waits]
        sys.exit(subprocess.run([*command, "--scheduler", cluster.scheduler_address], check=False).returncode)


if __name__ == "__main__":
    main()
