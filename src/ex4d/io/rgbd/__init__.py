"""RGB-D recordings as one input; `folder.open_rgbd` is the way in."""
